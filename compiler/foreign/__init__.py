"""ONNX files from anywhere: read, brought into one form, named, refused with the remedy."""
