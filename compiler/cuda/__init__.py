"""CUDA: kernels as TIR (`compiler.cuda.lowering`), their emulator, and how they become code."""
