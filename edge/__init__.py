"""The gateway: what listens, what runs the flow, and what an operator types."""
