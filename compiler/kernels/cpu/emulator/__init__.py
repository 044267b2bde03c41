"""Runs a processor's kernels in NumPy, so that every machine can check every instruction set."""
