"""The network as plain data: traced, rewritten, stored; models and pictures that are read."""
