"""The central service: the bridge to gateways, the flows on Kafka, what they deliver to, and servers to try it with."""
