"""Integer-only Vision Transformers, from PyTorch to the edge."""
