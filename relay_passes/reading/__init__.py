"""What passes read from Relax expressions."""
