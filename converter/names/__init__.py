"""The name of every tensor, and what config.json says about it."""
