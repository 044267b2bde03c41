"""The arithmetic contract: every integer operation of the project, exact, in NumPy.

Nothing here knows of torch, ONNX or TVM. The PyTorch side, the exporter, the passes and every
kernel are tested bit for bit against these functions. Each file states the paper's equation, where
we deviate, the ranges and the error bound:

    dyadic         multiplier / 2**shift; requantize with one HALF_UP rounding
    qparams        scale, zero point, bounds; quantize and dequantize (host side only)
    requantize     a change of scale, one rounding
    matmul         exact products, accumulator bounds
    linear         linear layers and the patch embedding
    pooling        mean over tokens
    add            residual addition, one rounding
    attention      queries, keys and values of a layer, its whole attention
    exp2           2**-f by a cubic in 16 bits
    shiftmax       softmax; codes with deferred normalization
    log_codes      attention weights on a logarithmic grid
    twin_codes     attention weights with a fine and a coarse range
    shiftgelu      GELU without division
    twin           a quantizer with a fine and a coarse range (after GELU)
    int_layernorm  LayerNorm with an exact integer square root
    ivit           the published forms of I-ViT, for models trained with them
    families       what the two families of nonlinear operators can do
    nonlinear      softmax and GELU of a family
    table          one code for each code (pixels: for each channel)
    rounding       the named roundings
"""
