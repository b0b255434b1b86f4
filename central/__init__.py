"""The central service; it begins with the issue that connects gateways to Kafka."""
