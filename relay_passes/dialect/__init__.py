"""The ``vitq.*`` operators."""
