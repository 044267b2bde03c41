"""The stages: one module for each command, from a PyTorch model to a verified library."""
