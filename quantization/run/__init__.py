"""Runs a graph: simulated in PyTorch, and exactly in NumPy."""
