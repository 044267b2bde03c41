"""Kernels of the ``vitq`` dialect as TIR PrimFuncs, bit-exact against `numerics`."""
