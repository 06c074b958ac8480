"""flagstream: feature-flag evaluation events, enriched in Kafka and exported exactly once."""

__version__ = "0.1.0"
