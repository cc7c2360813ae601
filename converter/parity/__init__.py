"""Runs the PyTorch reference and our candidate in processes of their own and compares what came out, tap by tap."""
