"""Runs compiled models with TVM's runtime libraries alone: NumPy and ctypes, no TVM, no compiler.

This package is copied as it is into a kit (`compiler.benchmark.kit`) for machines that have a GPU
but no TVM, and imports nothing of the rest of the project.
"""
