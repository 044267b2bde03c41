"""Measurements: speed is never asserted by a test."""
