"""Which stream goes where; no transport or runtime is named in a topology."""
