"""What all floors use: artifacts on disk, versions, progress, plots, workers."""
