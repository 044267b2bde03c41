"""Runs a module on NumPy."""
