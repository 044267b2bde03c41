"""Quantization: from a PyTorch model to a quantized graph, and its integer reference."""
