"""Calibration pictures without data: made from the float model alone."""
