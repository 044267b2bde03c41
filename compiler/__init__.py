"""The pipeline: stages, targets, kernels and the command line."""
