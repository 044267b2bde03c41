"""Chooses scales, zero points and weight codes from pictures."""
