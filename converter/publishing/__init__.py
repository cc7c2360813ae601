"""Publishes a converted checkpoint on the Hub: what would change, what the model card says, and the commit itself."""
