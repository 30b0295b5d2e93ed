"""The JSON API under /api/v1. Each module lists its handlers in `routes`; what they read and answer stands in `schema`."""
