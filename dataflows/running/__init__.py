"""A flow as a service: one process per state directory, its log, recovery store, pulse, metrics and service manager."""
