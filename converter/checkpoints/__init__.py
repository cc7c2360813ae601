"""One module per container: its header in, its header out. Everything after the header is bytes."""
