"""A float ONNX file as a PyTorch module: what `quantize` traces like any other."""
