"""The central service: so far a broker for its tests, and nothing that runs."""
