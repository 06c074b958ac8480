"""The enrich stage: ingest topic to output topic."""
