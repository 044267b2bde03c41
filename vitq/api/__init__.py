"""The public functions behind ``import vitq``: they take what is in hand and call the stages.

Each stage keeps its files in an artifact's folder. Here that folder is a temporary one that the
returned object owns, until it is saved.
"""
