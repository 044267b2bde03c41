"""Code generation: an ONNX file becomes an integer module, kernels, and a library that runs."""
