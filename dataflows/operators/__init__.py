"""The steps of the topologies: pure functions, each wrapped once."""
