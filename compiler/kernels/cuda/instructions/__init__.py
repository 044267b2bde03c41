"""The machine instructions that TIR has no words for, each once: CUDA text and NumPy meaning."""
