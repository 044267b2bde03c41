"""Records of tuned kernels, one folder for each target."""
