"""Export: a quantized graph as a standard ONNX QDQ file, and its parity with PyTorch."""
