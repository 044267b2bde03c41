"""The contract's formulas in TIR, each once, over the lanes that a family of kernels has."""
