"""One module per container: its header in, its header out. What lies behind the header is bytes."""
