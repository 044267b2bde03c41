"""Linear layers and the patch embedding on tensor cores, requantized in registers.

One template makes all of the family: ``y = second(clamp((x @ weight.T * m + addend) >> s))``, where
the second step is nothing, a residual addition or a GELU (`compiler.kernels.cuda.epilogue`). How
the product is cut is `compiler.kernels.cuda.tile`'s matter, its main loop
`compiler.kernels.cuda.mainloop`'s. Weights stay as they are, (N, K), with K padded by zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from vitq.compiler.kernels.cuda.arith import folded_add, is_twin
from vitq.compiler.kernels.cuda.codes import fills
from vitq.compiler.kernels.cuda.emit import ALIGN, Buffer, Shared, ceil_div, index, launch, spread
from vitq.compiler.kernels.cuda.epilogue import Epilogue, Forms, needs_of, pack_channels
from vitq.compiler.kernels.cuda.gelu_table import gelu_table
from vitq.compiler.kernels.cuda.instructions import wgmma
from vitq.compiler.kernels.cuda.kernel import call_of, gpu_of
from vitq.compiler.kernels.cuda.loading import MovedRows, Patches, Rows, Source
from vitq.compiler.kernels.cuda.mainloop import MainLoop
from vitq.compiler.kernels.cuda.prediction import Product, knobs
from vitq.compiler.kernels.cuda.tile import K_ALIGN, tile_of
from vitq.compiler.kernels.gathering import gathered
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.add import AddParams
from vitq.numerics.arrays import IntArray
from vitq.numerics.linear import GEMM_OPERANDS
from vitq.numerics.shiftgelu import GeluParams

SIGNS = {"int8": "s8", "uint8": "u8"}


@dataclass(frozen=True)
class GemmSpec:
    """What the code depends on beside types.

    Attributes:
        forms: which shorter code is exact.
        patch: edge of a patch; 0 for a linear layer.
        folded: whether an addition has all constants in one.
        bucket_bits: of a GELU's table; 0 where there is none.
        twin: whether a computed GELU has a coarse range.
    """

    forms: Forms
    patch: int = 0
    folded: bool = False
    bucket_bits: int = 0
    twin: bool = False


def lower_linear(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.linear``: x (..., K), weight (N, K) -> (..., N)."""
    return _call(LINEAR, operands, constants, (), out, features)


def lower_linear_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.linear_add``: the codes of ``vitq.linear`` plus a residual (..., N)."""
    params = constants[GEMM_OPERANDS + 1].astype(np.int32)
    p = AddParams(*(int(v) for v in params))
    residual = np.iinfo(operands[GEMM_OPERANDS].dtype)
    limits = (int(np.abs(constants[6].astype(np.int64)).max()), max(-residual.min, residual.max))
    folded = folded_add(p, limits)
    facts = {"folded": folded is not None, "bounds": (p.qmin, p.qmax)}
    more = (GEMM_OPERANDS, params if folded is None else folded)
    return _call(LINEAR_ADD, operands, constants, more, out, features, facts)


def lower_linear_gelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.linear_gelu``: GELU of the codes of ``vitq.linear``."""
    params = constants[GEMM_OPERANDS].astype(np.int32)
    p = GeluParams(*(int(v) for v in params))
    facts: dict[str, Any] = {"bounds": (p.qmin, p.qmax)}
    qmin, qmax = (int(v) for v in constants[6])
    table = gelu_table(p, qmin, qmax) if np.dtype(out.dtype).itemsize == 1 else None
    if table is None:
        facts |= {"twin": is_twin(params)}
        return _call(LINEAR_GELU, operands, constants, (params,), out, features, facts)
    limits = np.array([0, table.reach], np.int32)
    facts |= {"bucket_bits": table.bucket_bits, "low": table.low, "limits": limits}
    return _call(LINEAR_GELU, operands, constants, (table.words,), out, features, facts)


def lower_gather_linear(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.gather_linear``: x (B, R, K), rows (M,), then as ``vitq.linear`` -> (B, M, N)."""
    return gathered(GATHER_LINEAR, lower_linear, operands, constants, out, features)


def lower_gather_linear_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.gather_linear_add``: the codes of ``vitq.gather_linear`` plus a residual."""
    return gathered(GATHER_LINEAR_ADD, lower_linear_add, operands, constants, out, features)


def lower_patch_embed(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.patch_embed``: pixels (B, Cin, H, W), weight (N, Cin, P, P) -> (B, L, N)."""
    facts = {"patch": operands[1].shape[-1]}
    return _call(PATCH_EMBED, operands, constants, (), out, features, facts)


def _call(
    template: Template,
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    more: tuple[int | IntArray, ...],
    out: TensorType,
    features: GpuFeatures,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> KernelCall:
    weight = constants[1].reshape(constants[1].shape[0], -1)
    padding = -weight.shape[1] % K_ALIGN
    padded = np.pad(weight, ((0, 0), (0, padding)))
    limits = constants[6].astype(np.int32)
    facts = {"bounds": tuple(int(v) for v in limits), "low": 0, "limits": limits, **facts}
    narrow, up, channels = pack_channels(weight, constants, facts.pop("low"))
    forms = Forms(narrow, up, fills(out.dtype, *facts.pop("bounds")))
    order: tuple[int | IntArray, ...] = (0, padded, channels, facts.pop("limits"), *more)
    return call_of(template, operands, order, out, features, GemmSpec(forms, **facts))


def product_of(kernel: Kernel) -> Product:
    """Return the product of a kernel."""
    columns, inner = kernel.inputs[1].shape
    return Product(kernel.out.size // columns, columns, inner, needs_of(kernel))


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    return knobs(product_of(kernel), gpu_of(kernel))


def _source(kernel: Kernel, x: Buffer, table: Buffer | None) -> Source:
    """Where the left operand's bytes come from."""
    if table is not None:
        return MovedRows(x, kernel.inputs[0], table, kernel.inputs[-1].size)
    if kernel.spec.patch:
        return Patches(x, kernel.inputs[0], kernel.spec.patch)
    return Rows(x, kernel.inputs[0].rows)


def _body(kernel: Kernel, schedule: Schedule, x: Buffer, weight: Buffer, *rest: Buffer) -> None:
    gpu = gpu_of(kernel)
    table = rest[-2] if kernel.template in GATHERING else None
    rest = rest if table is None else (*rest[:-2], rest[-1])
    rows, columns, inner, needs = product_of(kernel)
    tile = tile_of(schedule, inner, gpu, needs)
    grid = ceil_div(columns, tile.block_n), ceil_div(rows, tile.block_m)
    with launch(grid, tile.threads, early=True) as block:
        size = max(tile.shared_bytes(needs), spread(grid, tile.threads, gpu))
        shared = Shared(size, wgmma.ALIGN if tile.wgmma else ALIGN)
        first = index(block.y * tile.block_m), index(block.x * tile.block_n)
        sources = _source(kernel, x, table), Rows(weight, kernel.inputs[1])
        loop = MainLoop(tile, shared, block, sources, first, inner)
        epilogue = Epilogue(kernel, tile, rest, shared, loop)
        epilogue.fetch_constants()
        signs = SIGNS[kernel.inputs[0].dtype] + SIGNS[kernel.inputs[1].dtype]
        epilogue.emit(loop.emit(signs, epilogue.fetch_inputs))


LINEAR = Template("linear", _body, _knobs)
LINEAR_ADD = Template("linear_add", _body, _knobs)
LINEAR_GELU = Template("linear_gelu", _body, _knobs)
PATCH_EMBED = Template("patch_embed", _body, _knobs)
GATHER_LINEAR = Template("gather_linear", _body, _knobs)
GATHER_LINEAR_ADD = Template("gather_linear_add", _body, _knobs)
GATHERING = (GATHER_LINEAR, GATHER_LINEAR_ADD)
