"""How a tensor lies in each framework, and how it moves."""
