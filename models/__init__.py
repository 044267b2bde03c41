"""Small reference models that ship with the repository, weights and data included."""
