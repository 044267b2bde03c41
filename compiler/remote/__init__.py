"""Devices that serve measurements: ``vitq-serve`` on each, TVM's tracker in between.

`tracker` says who is there, `device` what it is, `connection` is the worker process's end of a
session on one, `client` this process's, `fleet` measures on several at once, `library` runs a
compiled model there.
"""
