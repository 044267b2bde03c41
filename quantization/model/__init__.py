"""The user's float model: found by name, built, given its weights."""
