"""ShiftGELU: `numerics.shiftgelu` elementwise.

The plain form takes one int32 lane for each element. The 16-bit form (`Halves`) makes each
product of the contract one ``mulhrs``, which needs shifts of 15 and operands of 16 bits:
`_fits_halves`. The input's multiplier may enlarge (``si < 15``), so the distance is moved up by
``15 - si`` first; so may the tail's where inputs are fine (``st < 15``), and h, which is at most
`TAIL_MAX`, is moved up by ``15 - st``. The one distance beyond int16, 2**15, is taken as 2**15 - 1:
where it counts (``farthest``) and ``si`` is 15, ``mi`` is under 2**14, and both lead to mi.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    cast,
    const,
    load,
    splat,
    store,
    view,
)
from vitq.compiler.kernels.cpu.elementwise import for_flat, scalars
from vitq.compiler.kernels.cpu.fixed import Halves, Words
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.forms.dyadic import rounded
from vitq.compiler.kernels.forms.shiftgelu import (
    GeluShifts,
    Rounded,
    shiftgelu,
    shiftgelu_tail,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics import shiftgelu as contract
from vitq.numerics.arrays import IntArray
from vitq.numerics.shiftgelu import WORD_SHIFT, GeluParams

BYTE = 8
HALF_LIMIT = 2**15
TAIL_MAX = int(contract.shiftgelu_tail(np.arange(2**15)).max())


@dataclass(frozen=True)
class GeluSpec:
    """What the code of a GELU depends on.

    Attributes:
        halves: whether the 16-bit form computes the contract's bits.
        plain: whether the input has zero point 0 and ``up`` is 0.
        own: whether the bounds are those of the result's type.
        twin: whether there is a coarse range.
        lifted: whether the tail's shift is under 15.
    """

    halves: bool
    plain: bool
    own: bool
    twin: bool = False
    lifted: bool = False


def lower_shiftgelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.shiftgelu``: x, params."""
    info = np.iinfo(operands[0].dtype)
    codes = int(info.min), int(info.max)
    params = constants[1].astype(np.int64)
    spec = gelu_spec(params, codes, out.dtype, features)
    inputs = (operands[0], tensor_of(params))
    return KernelCall(Kernel(SHIFTGELU, inputs, out, features, spec), (0, params))


def gelu_spec(
    params: IntArray, codes: tuple[int, int], out_dtype: str, features: CpuFeatures
) -> GeluSpec:
    """Return the form of a GELU's code.

    Args:
        params: GeluParams.
        codes: the smallest and the largest one.
        out_dtype: of the result.
        features: of the processor.
    """
    p = GeluParams(*(int(v) for v in params))
    info = np.iinfo(out_dtype)
    halves = halves_for(features) is not None and info.bits == BYTE and _fits_halves(p, codes)
    own = (p.qmin, p.qmax) == (info.min, info.max)
    plain, lifted = p.x_zero_point == 0 and p.up == 0, p.tail_shift < WORD_SHIFT
    return GeluSpec(halves, plain, own, p.is_twin, lifted)


def _fits_halves(p: GeluParams, codes: tuple[int, int]) -> bool:
    """Whether `GeluHalves` computes the contract's bits."""
    low, high = codes[0] - p.x_zero_point, codes[1] - p.x_zero_point
    far = min(max(high, -low), p.farthest, HALF_LIMIT - 1)
    return (
        low >= -HALF_LIMIT
        and high << p.up < HALF_LIMIT
        and far << (WORD_SHIFT - p.in_shift) < HALF_LIMIT
        and TAIL_MAX << (WORD_SHIFT - p.tail_shift) < HALF_LIMIT
        and p.out_shift == WORD_SHIFT
        and 1 <= p.more <= WORD_SHIFT
        and (not p.is_twin or _coarse_fits_halves(p, codes))
    )


def _coarse_fits_halves(p: GeluParams, codes: tuple[int, int]) -> bool:
    """Whether the coarse code's difference and shift fit 16-bit lanes, too."""
    highest = max(codes[1] - p.x_zero_point, 0) << p.up
    lowest = -(TAIL_MAX * p.tail_multiplier >> p.tail_shift) - 1
    ends = [(end * p.out_multiplier >> p.out_shift) - p.split_steps for end in (lowest, highest)]
    return (
        -HALF_LIMIT <= ends[0]
        and ends[1] < HALF_LIMIT - 1
        and abs(p.split_steps) < HALF_LIMIT
        and p.more + p.twin_shift <= WORD_SHIFT
    )


def _gelu_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, result: Buffer
) -> None:
    x_type = kernel.inputs[0]
    spec: GeluSpec = kernel.spec
    halves = halves_for(kernel.features) if spec.halves else None

    source, target = view(x, x_type.flat), view(result, kernel.out.flat)
    plain = GeluWords(params, spec.twin)
    wide = GeluHalves(params, spec, halves) if halves else None
    lanes = kernel.features.lanes if wide is None else 2 * kernel.features.lanes

    def emit(i: Expr, n: int) -> None:
        codes = load(source, i, lanes=n)
        store(target, wide(codes) if wide is not None and n == lanes else plain(codes), i)

    for_flat(x_type.size, lanes, emit)


SHIFTGELU = Template("shiftgelu", _gelu_body)


class GeluWords:
    """GELU of any codes in int32 lanes: takes and returns registers."""

    def __init__(self, params: Buffer, twin: bool) -> None:
        """Read GeluParams; `twin`: see `GeluSpec`."""
        self.p, self.twin = _read(params), twin

    def __call__(self, codes: Expr) -> Expr:
        """Codes of any integer type to int32."""
        p = self.p
        into, tail, out, more = map(_rounded, (p.in_shift, p.tail_shift, p.out_shift, p.more))
        shifts = GeluShifts(into, lambda x: bind(tail(x)), out, more)
        coarse = _Coarse(p) if self.twin else None
        return shiftgelu(Words(), cast(codes, "int32"), p, shifts, coarse)


def _rounded(shift: Expr) -> Rounded:
    """Emit a rounding shift by a scalar, of which half is made where it is used."""

    def rounding(x: Expr) -> Expr:
        half = bind((1 << shift) >> 1)
        return rounded(bind(x), half, shift)

    return rounding


class _Coarse:
    """`compiler.kernels.forms.shiftgelu.Coarse`, evaluated where the code is that needs it."""

    def __init__(self, p: GeluParams) -> None:
        self.p = p

    @property
    def steps(self) -> Expr:
        """Where it begins."""
        return bind(self.p.split_steps)

    @property
    def down(self) -> Rounded:
        """From t to its codes."""
        return _rounded(bind(self.p.more + self.p.twin_shift))

    @property
    def largest(self) -> Expr:
        """Its largest code."""
        return bind((self.p.qmax - self.p.split) >> self.p.twin_shift)


class GeluHalves:
    """GELU of a register of codes in 16-bit lanes (module docstring)."""

    def __init__(self, params: Buffer, spec: GeluSpec, halves: Halves) -> None:
        """Read GeluParams."""
        self.halves, self.spec = halves, spec
        p = _read(params)
        up, more = bind(WORD_SHIFT - p.in_shift), bind(1 << (WORD_SHIFT - p.more))
        self.farthest = bind(tirx.min(p.farthest, const(HALF_LIMIT - 1, "int32")))
        if spec.twin:
            down = 1 << (WORD_SHIFT - p.more - p.twin_shift)
            limit = (p.qmax - p.split) >> p.twin_shift
            self.coarse = [self._word(bind(v)) for v in (p.split_steps, down, limit)]
        lift = bind(WORD_SHIFT - p.tail_shift)
        words = p._replace(in_shift=up, tail_shift=lift, more=more)
        self.p = GeluParams(*(self._word(v) for v in words))

    def _word(self, scalar: Expr) -> Expr:
        return splat(bind(cast(scalar, "int16")), self.halves.lanes)

    def __call__(self, codes: Expr, saturates: bool = False) -> Expr:
        """GELU of one register.

        Args:
            codes: that fit into int16, in any order of lanes.
            saturates: whether what follows limits results to their type.

        Returns:
            int16 lanes.
        """
        q, p = self.halves, self.p
        none = const(0, "int16", q.lanes)
        centred = bind(cast(codes, "int16"))
        if not self.spec.plain:
            centred = bind(centred - p.x_zero_point)
        distance = q.unsigned_min(bind(tirx.abs(centred)), self.farthest)
        eighth = q.mulhrs(bind(distance << p.in_shift), p.in_multiplier)
        height = shiftgelu_tail(q, bind(eighth + eighth))
        if self.spec.lifted:
            height = bind(height << p.tail_shift)
        tail = q.mulhrs(height, p.tail_multiplier)
        positive = bind(tirx.max(centred, none))
        if not self.spec.plain:
            positive = bind(positive << p.up)
        t = q.mulhrs(bind(positive - tail), p.out_multiplier)
        code = bind(q.mulhrs(t, p.more) + p.zero_point)
        if self.spec.twin:
            split, down, limit = self.coarse
            above = bind(tirx.max(q.mulhrs(bind(t - split), down), none))
            coarse = bind(tirx.min(above, limit) << p.twin_shift)
            return bind(bind(tirx.min(tirx.max(code, p.qmin), p.split)) + coarse)
        if saturates and self.spec.own:
            return code
        return bind(tirx.min(tirx.max(code, p.qmin), p.qmax))


def _read(params: Buffer) -> GeluParams:
    """GeluParams as int32 expressions."""
    return GeluParams(*scalars(params, len(GeluParams._fields)))
