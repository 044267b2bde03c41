"""The command line: parses what the user gives, calls a stage, shows the result."""
