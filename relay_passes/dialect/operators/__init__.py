"""The records of all operators, each near its family."""
