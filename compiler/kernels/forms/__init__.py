"""The contract's formulas, each once, over the lanes that a family of kernels has.

What is not here differs between the families by more than its lanes, for the same bits:

* residual addition: 32-bit vectors fold zero points and rounding into one constant, 16-bit vectors
  add both products in one instruction, CUDA folds the output's zero point, too, where that fits;
* the distance from a row's maximum, the normalization of Shiftmax and of LayerNorm, and
  requantized accumulators: the upper word of a 64-bit product, from even and odd lanes
  (`compiler.kernels.cpu.arith`), from 16-bit halves (`compiler.kernels.cpu.octaves`), or from one
  ``IMAD.HI`` (`compiler.kernels.cuda.attention_codes`);
* ShiftGELU in 16-bit lanes, one ``mulhrs`` for each line (`compiler.kernels.cpu.shiftgelu`),
  and as a table (`compiler.kernels.cuda.gelu_table`);
* the divisions of I-ViT: by a multiplier, or bit by bit.
"""
