"""Runs a CUDA kernel's TIR in NumPy: every thread of every block in lockstep."""
