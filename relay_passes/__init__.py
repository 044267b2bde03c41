"""Graph passes: an imported QDQ network becomes a module of integer operators.

Relay no longer exists in apache-tvm: Relax is its successor, and these are Relax passes. The folder
keeps the name that users look for.

``relay_passes.pipeline.integerize`` runs all of them; ``relay_passes.dialect.calls`` names the
operators they emit. This module imports nothing, so that importing the package costs nothing.
"""
