"""What is compiled for: the table of targets, their features, tools and emulators."""
