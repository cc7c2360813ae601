"""Runs the PyTorch reference and our candidate in separate processes and compares their outputs, tap by tap."""
