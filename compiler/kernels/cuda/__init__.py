"""Kernels for NVIDIA GPUs: what one thread does, as TIR."""
