"""Windows as HTTP requests to a receiver."""
