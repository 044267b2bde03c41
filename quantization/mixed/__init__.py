"""Chooses a width for each layer, measured."""
