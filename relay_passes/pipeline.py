"""The order of the passes, and `integerize`, which runs them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tvm import IRModule
from tvm.tirx import IntImm

from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.relay_passes.canonicalize_layout import CanonicalizeLayout
from vitq.relay_passes.canonicalize_qdq import CanonicalizeQdq
from vitq.relay_passes.check_accumulators import AccumulatorBound, CheckAccumulators
from vitq.relay_passes.check_integer_only import CheckIntegerOnly
from vitq.relay_passes.distribute_quantize import DistributeQuantize
from vitq.relay_passes.expressions import MAIN, bindings_of
from vitq.relay_passes.fold_clip import FoldClip
from vitq.relay_passes.fold_code_table import FoldCodeTable
from vitq.relay_passes.fold_constants import FoldConstants
from vitq.relay_passes.fold_input_normalization import FoldInputNormalization
from vitq.relay_passes.fold_layernorm_scales import FoldLayernormScales
from vitq.relay_passes.fold_scalar_multiply import FoldScalarMultiply
from vitq.relay_passes.fuse_attention import FuseAttention
from vitq.relay_passes.fuse_epilogue import FuseEpilogue
from vitq.relay_passes.hoist_quantize import HoistQuantize
from vitq.relay_passes.lower_add import LowerAdd
from vitq.relay_passes.lower_layernorm import LowerLayernorm
from vitq.relay_passes.lower_linear import LowerLinear
from vitq.relay_passes.lower_matmul import LowerMatmul
from vitq.relay_passes.lower_normalized_matmul import LowerNormalizedMatmul
from vitq.relay_passes.lower_patch_embed import LowerPatchEmbed
from vitq.relay_passes.lower_pooling import LowerPooling
from vitq.relay_passes.lower_requantize import LowerRequantize
from vitq.relay_passes.lower_shiftgelu import LowerShiftgelu
from vitq.relay_passes.lower_shiftmax import LowerShiftmax
from vitq.relay_passes.rewriting import BindingPass
from vitq.relay_passes.select_tokens_early import SelectTokensEarly
from vitq.relay_passes.simplify_layout import SimplifyLayout
from vitq.relay_passes.sink_dequantize import SinkDequantize
from vitq.relay_passes.strip_output_dequantize import OutputInfo, StripOutputDequantize

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassOptions:
    """What the graph itself cannot say.

    Attributes:
        mean: of each input channel, for networks that take normalized floats; None if unknown.
        std: likewise.
        nonlinear: the family of integer nonlinear operators.
        fuse_attention: emit ``vitq.attention`` where one qkv layer feeds it.
        fuse_epilogue: emit ``vitq.linear_add`` and ``vitq.linear_gelu``.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    nonlinear: Nonlinear = Nonlinear.VITQ
    fuse_attention: bool = True
    fuse_epilogue: bool = True

    def __post_init__(self) -> None:
        """Refuse half a normalization and an unknown family."""
        object.__setattr__(self, "nonlinear", Nonlinear.parse(self.nonlinear))
        if (self.mean is None) != (self.std is None):
            raise VitqError("give both mean and std of the input, or neither")
        if self.std is not None and any(value <= 0 for value in self.std):
            raise VitqError(f"std {self.std} has a value that is not positive")


@dataclass
class Report:
    """What the passes found.

    Attributes:
        outputs: each result's type and meaning.
        bounds: proven bounds of all accumulators.
        declines: variable left in the module -> why a pass did not rewrite it.
        passes: (pass, seconds) in the order run.
    """

    outputs: list[OutputInfo] = field(default_factory=list)
    bounds: list[AccumulatorBound] = field(default_factory=list)
    declines: dict[str, str] = field(default_factory=dict)
    passes: list[tuple[str, float]] = field(default_factory=list)


@dataclass
class IntegerModule:
    """An integer-only module.

    Attributes:
        mod: ``main`` takes uint8 pixels and returns integer codes.
        report: what they mean, and what was proven.
    """

    mod: IRModule
    report: Report


Pass = BindingPass | CheckIntegerOnly | CheckAccumulators


def phases(options: PassOptions) -> list[tuple[str, list[BindingPass]]]:
    """All rewriting passes in order.

    Args:
        options: what the graph cannot say.

    Returns:
        Named phases; the reason for each place stands beside it.
    """
    return [
        ("canonicalize", _canonicalize(options)),
        ("hoist", _hoist()),
        ("lower", _lower(options)),
        ("simplify", _simplify(options)),
    ]


def _canonicalize(options: PassOptions) -> list[BindingPass]:
    """One form for everything that later passes match."""
    return [
        FoldConstants(),  # Gather's index arithmetic and Clip's bounds become constants
        FoldClip(),  # before anything looks at a quantizer and misses its bounds
        CanonicalizeLayout(),  # a Gather of constant indices becomes a slice
        CanonicalizeQdq(),  # constants to the right: the next pass reads them there
        FoldInputNormalization(options.mean, options.std),  # before its quantizer can move
        FoldLayernormScales(),  # while the weights behind are still float
        SinkDequantize(),  # quantizers around layout operators come to lie side by side,
        CanonicalizeQdq(),  # and cancel
        FoldScalarMultiply(),  # a GEMM reads codes, not their product with a number
        SelectTokensEarly(),  # while layer_norm and slice are neighbours
        SinkDequantize(),  # below the slices that the last pass moved up
        FoldConstants(),  # layout of constant codes
    ]


def _hoist() -> list[BindingPass]:
    """Each quantizer right behind the operator that computes what it quantizes."""
    return [
        DistributeQuantize(),  # first, for a concat ends a chain of layout operators
        HoistQuantize(),  # before any lowering: a GEMM needs its quantizer right behind it
        SinkDequantize(),  # hoisted codes come with layout operators above their dequantize
        CanonicalizeQdq(),  # parts of a concat that already had its quantizer
    ]


def _lower(options: PassOptions) -> list[BindingPass]:
    """Float operators between dequantize and quantize become integer operators."""
    return [
        LowerPatchEmbed(),
        LowerLinear(),
        LowerMatmul(),  # scores become an accumulator with a scale,
        SinkDequantize(),  # whose layout and
        FoldScalarMultiply(),  # factor must be known
        LowerShiftmax(options.nonlinear),  # before softmax can read it
        FoldCodeTable(),  # between a Shiftmax and what reads it
        LowerNormalizedMatmul(),  # needs to see that a Shiftmax made the weights
        LowerShiftgelu(options.nonlinear),
        LowerLayernorm(),
        LowerAdd(),  # after the GEMMs, whose biases are additions too
        LowerPooling(),
        LowerRequantize(),  # last: what is now left between dequantize and quantize is nothing
        StripOutputDequantize(),
    ]


def _simplify(options: PassOptions) -> list[BindingPass]:
    """Less layout, larger operators."""
    passes: list[BindingPass] = [
        FoldConstants(),  # class token: broadcast and requantized constants
        SimplifyLayout(),  # so that attention's layout is in its shortest form
    ]
    if options.fuse_attention:
        passes += [
            FuseAttention(),
            SimplifyLayout(),  # the heads' split and merge cancel around the fused operator
        ]
    if options.fuse_epilogue:
        passes.append(FuseEpilogue())  # last: no layout is left between a layer and its reader
    return passes


def integerize(
    mod: IRModule, options: PassOptions | None = None, debug_dump: Path | None = None
) -> IntegerModule:
    """Turn an imported QDQ network into integer operators.

    Args:
        mod: from ``tvm.relax.frontend.onnx.from_onnx`` with static shapes.
        options: what the graph cannot say.
        debug_dump: a folder for the IR after each pass.

    Returns:
        The integer-only module and its report.

    Raises:
        VitqError: if float operators are left, naming all of them.
        RangeError: if an accumulator could overflow.
    """
    started = time.perf_counter()
    _require_static_shapes(mod)
    report = Report()
    run = _Runner(report, debug_dump)
    run.dump("imported", mod)
    for phase, passes in phases(options or PassOptions()):
        for step in passes:
            mod = run(phase, step.name, step, mod)
            report.declines.update(step.declines)
            if isinstance(step, StripOutputDequantize):
                report.outputs = step.outputs
    check = CheckAccumulators()
    mod = run("check", CheckIntegerOnly.name, CheckIntegerOnly(report.declines), mod)
    mod = run("check", check.name, check, mod)
    report.bounds = check.bounds
    alive = {binding.var.name for binding in bindings_of(mod[MAIN])}
    report.declines = {var: why for var, why in report.declines.items() if var in alive}
    log.info("integerize: %d passes, %.1f s", len(report.passes), time.perf_counter() - started)
    return IntegerModule(mod, report)


def _require_static_shapes(mod: IRModule) -> None:
    """Refuse symbolic dimensions: the import must fix the batch."""
    for param in mod[MAIN].params:
        if not all(isinstance(dim, IntImm) for dim in param.ty.shape.values):
            raise VitqError(
                f"input {param.name} has the dynamic shape {param.ty.shape}: import the network "
                "with a fixed batch size"
            )


class _Runner:
    """Runs one pass, times it, and writes the IR behind it."""

    def __init__(self, report: Report, folder: Path | None) -> None:
        self._report = report
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, phase: str, name: str, step: Callable[[IRModule], IRModule], mod: IRModule
    ) -> IRModule:
        started = time.perf_counter()
        mod = step(mod)
        self._report.passes.append((name, time.perf_counter() - started))
        self.dump(f"{phase}_{name}", mod)
        return mod

    def dump(self, name: str, mod: IRModule) -> None:
        """Write the module as TVMScript, numbered in the order of the passes."""
        if self._folder is not None:
            path = self._folder / f"{len(self._report.passes):02d}_{name}.py"
            path.write_text(mod.script())
