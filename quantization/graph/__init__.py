"""The network as plain data: traced, rewritten, stored."""
