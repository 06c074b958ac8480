"""The worker's own HTTP client, for everything that is not the client of a cloud: receivers of webhooks,
servers and relays with flags, the schema registry."""
