"""A model in its own process, and the requests to it."""
