"""Stage ``deploy``: a folder with which a device runs a compiled model, without Python."""
