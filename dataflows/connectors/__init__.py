"""The outside world as sources and sinks: one file per library or protocol."""
