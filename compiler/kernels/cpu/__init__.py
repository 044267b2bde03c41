"""Kernels for processors: x86-64 and ARM."""
