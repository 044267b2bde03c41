"""NVIDIA's toolchain: TVM's CUDA text becomes machine code, and the driver runs it."""
