"""Converts vision-text dual encoders between PyTorch and TensorFlow checkpoints."""
