"""The layout of a tensor in each framework, and how it moves."""
