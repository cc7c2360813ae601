"""What every tensor is called, and what config.json says of it."""
