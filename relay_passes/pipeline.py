"""The order of the passes, as a TVM pipeline; `integerize` runs it and says what it found.

    relax.get_pipeline("vitq")(mod)                      # after importing this module
    pipeline.vitq_pipeline(PassOptions(...))(mod)        # the same with options

Each pass is a ``tvm.transform.Pass`` with its own name, so that instruments of a ``PassContext``
see it; what it requires is checked before it, and what it ensures after it.
"""

import logging
import time
from collections import ChainMap
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tvm
from tvm import IRModule, relax

from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.relay_passes.canonicalize_layout import CanonicalizeLayout
from vitq.relay_passes.canonicalize_qdq import CanonicalizeQdq
from vitq.relay_passes.check_accumulators import AccumulatorBound, CheckAccumulators
from vitq.relay_passes.check_integer_only import CheckIntegerOnly, FloatIsland
from vitq.relay_passes.distribute_quantize import DistributeQuantize
from vitq.relay_passes.expressions import MAIN, bindings_of
from vitq.relay_passes.fold_clamp import FoldClamp
from vitq.relay_passes.fold_clip import FoldClip
from vitq.relay_passes.fold_code_table import FoldCodeTable
from vitq.relay_passes.fold_constants import FoldConstants
from vitq.relay_passes.fold_input_normalization import FoldInputNormalization
from vitq.relay_passes.fold_layernorm_scales import FoldLayernormScales
from vitq.relay_passes.fold_scalar_multiply import FoldScalarMultiply
from vitq.relay_passes.fuse_attention import FuseAttention
from vitq.relay_passes.fuse_epilogue import FuseEpilogue
from vitq.relay_passes.fuse_gather import FuseGather
from vitq.relay_passes.hoist_quantize import HoistQuantize
from vitq.relay_passes.lower_add import LowerAdd
from vitq.relay_passes.lower_argmax import LowerArgmax
from vitq.relay_passes.lower_depthwise import LowerDepthwise
from vitq.relay_passes.lower_layernorm import LowerLayernorm
from vitq.relay_passes.lower_linear import LowerLinear
from vitq.relay_passes.lower_matmul import LowerMatmul
from vitq.relay_passes.lower_multiply import LowerMultiply
from vitq.relay_passes.lower_normalized_matmul import LowerNormalizedMatmul
from vitq.relay_passes.lower_offset import LowerOffset
from vitq.relay_passes.lower_patch_embed import LowerPatchEmbed
from vitq.relay_passes.lower_pointwise import LowerPointwise
from vitq.relay_passes.lower_pooling import LowerPooling
from vitq.relay_passes.lower_requantize import LowerRequantize
from vitq.relay_passes.lower_rmsnorm import LowerRmsnorm
from vitq.relay_passes.lower_row_moves import LowerRowMoves
from vitq.relay_passes.lower_shiftgelu import LowerShiftgelu
from vitq.relay_passes.lower_shiftmax import LowerShiftmax
from vitq.relay_passes.module_pass import ModulePass
from vitq.relay_passes.properties import forget, static_shapes
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
        islands: float operators that are left, where the module was refused for them.
    """

    outputs: list[OutputInfo] = field(default_factory=list)
    bounds: list[AccumulatorBound] = field(default_factory=list)
    declines: dict[str, str] = field(default_factory=dict)
    passes: list[tuple[str, float]] = field(default_factory=list)
    islands: list[FloatIsland] = field(default_factory=list)


@dataclass
class IntegerModule:
    """An integer-only module.

    Attributes:
        mod: ``main`` takes uint8 pixels and returns integer codes.
        report: what they mean, and what was proven.
    """

    mod: IRModule
    report: Report


def phases(
    options: PassOptions, islands: list[FloatIsland] | None = None
) -> list[tuple[str, list[ModulePass]]]:
    """All passes in order.

    Args:
        options: what the graph cannot say.
        islands: is filled with the float operators that are left.

    Returns:
        Named phases; the reason for each place stands beside it.
    """
    rewriting: list[tuple[str, list[BindingPass]]] = [
        ("canonicalize", _canonicalize(options)),
        ("hoist", _hoist()),
        ("lower", _lower(options)),
        ("simplify", _simplify(options)),
    ]
    steps = [step for _, passes in rewriting for step in passes]
    return [
        *((name, list[ModulePass](passes)) for name, passes in rewriting),
        ("check", _check(steps, islands)),
    ]


def _canonicalize(options: PassOptions) -> list[BindingPass]:
    """One form for everything that later passes match."""
    return [
        FoldConstants(),  # Gather's index arithmetic, Clip's bounds and float weights' codes
        FoldClip(),  # before anything looks at a quantizer and misses its bounds
        CanonicalizeLayout(),  # a Gather of constant indices becomes a slice
        CanonicalizeQdq(),  # constants to the right: the next pass reads them there
        FoldInputNormalization(options.mean, options.std),  # before its quantizer can move
        FoldLayernormScales(),  # while the weights behind are still float
        FoldClamp(),  # before a quantizer is hoisted: what is clamped is what it goes to
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
        FoldConstants(),  # a float class token among the parts has its quantizer now
        HoistQuantize(),  # before any lowering: a GEMM needs its quantizer right behind it
        SinkDequantize(),  # hoisted codes come with layout operators above their dequantize
        CanonicalizeQdq(),  # parts of a concat that already had its quantizer
    ]


def _lower(options: PassOptions) -> list[BindingPass]:
    """Float operators between dequantize and quantize become integer operators."""
    return [
        LowerDepthwise(),  # before the next, which refuses groups
        LowerPatchEmbed(),
        LowerLinear(),
        LowerMatmul(),  # scores become an accumulator with a scale,
        SinkDequantize(),  # whose layout and
        FoldScalarMultiply(),  # factor must be known
        LowerPointwise(),  # before an addition of a number in it is taken for
        LowerOffset(),  # to a bias or mask, and all of them
        LowerShiftmax(options.nonlinear),  # before softmax can read it
        FoldCodeTable(),  # between a Shiftmax and what reads it
        LowerNormalizedMatmul(),  # needs to see that a Shiftmax made the weights
        LowerShiftgelu(options.nonlinear),
        LowerLayernorm(),
        LowerRmsnorm(),  # before its products are taken for others
        LowerMultiply(),  # after all whose spelling has a product of two activations
        LowerAdd(),  # after the GEMMs, whose biases are additions too
        LowerPooling(),
        LowerArgmax(),  # before its quantizer is taken for a requantization
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
    passes += [
        LowerRowMoves(),  # behind attention, whose heads' layout splits rows
        FuseGather(),
    ]
    if options.fuse_epilogue:
        passes.append(FuseEpilogue())  # last: only reshapes are left between a layer and its reader
    return [*passes, SimplifyLayout()]  # reshapes of reshapes


def _check(
    earlier: list[BindingPass], islands: list[FloatIsland] | None = None
) -> list[ModulePass]:
    """Nothing is changed any more."""
    reasons = ChainMap(*(step.declines for step in reversed(earlier)))
    return [
        CheckIntegerOnly(reasons, islands),  # first, for it says best what is wrong
        CheckAccumulators(),  # of integer operators only
    ]


@relax.register_pipeline("vitq")
def vitq_pipeline(
    options: PassOptions | None = None,
    report: Report | None = None,
    debug_dump: Path | None = None,
) -> Any:
    """All passes as one ``tvm.transform.Sequential``.

    Args:
        options: what the graph itself cannot say.
        report: is filled with what the passes find.
        debug_dump: a folder for the IR after each pass.

    Returns:
        A TVM pass from an imported QDQ network to integer operators. It raises VitqError if float
        operators are left, naming all of them, and RangeError if an accumulator could overflow.
    """
    report = Report() if report is None else report
    observer = _Observer(report, debug_dump)
    steps = [
        step.as_tvm(partial(observer, phase))
        for phase, passes in phases(options or PassOptions(), report.islands)
        for step in passes
    ]
    begin = tvm.transform.module_pass(observer.begin, opt_level=0, name="BeginVitq")
    end = tvm.transform.module_pass(observer.end, opt_level=0, name="EndVitq")
    return tvm.transform.Sequential([begin, *steps, end], name="vitq")


def integerize(
    mod: IRModule,
    options: PassOptions | None = None,
    debug_dump: Path | None = None,
    report: Report | None = None,
) -> IntegerModule:
    """Turn an imported QDQ network into integer operators.

    Args:
        mod: from ``tvm.relax.frontend.onnx.from_onnx`` with static shapes.
        options: what the graph cannot say.
        debug_dump: a folder for the IR after each pass.
        report: is filled, also where the module is refused; a new one if absent.

    Returns:
        The integer-only module and its report.

    Raises:
        VitqError: if float operators are left, naming all of them.
        RangeError: if an accumulator could overflow.
    """
    started = time.perf_counter()
    report = Report() if report is None else report
    mod = vitq_pipeline(options, report, debug_dump)(mod)
    log.info("integerize: %d passes, %.1f s", len(report.passes), time.perf_counter() - started)
    return IntegerModule(mod, report)


class _Observer:
    """Fills a report pass by pass, and writes the IR behind each."""

    def __init__(self, report: Report, folder: Path | None) -> None:
        self._report = report
        self._folder = folder
        self._since = 0.0

    def begin(self, mod: IRModule, _: Any) -> IRModule:
        """Start the clock; a network of dynamic shapes is refused in the import's words."""
        problems = static_shapes(mod)
        if problems:
            raise VitqError("; ".join(problems))
        self._dump("imported", mod)
        self._since = time.perf_counter()
        return mod

    def __call__(self, phase: str, step: ModulePass, mod: IRModule) -> None:
        """Take down what a pass found."""
        self._report.passes.append((step.name, time.perf_counter() - self._since))
        if isinstance(step, BindingPass):
            self._report.declines.update(step.declines)
        if isinstance(step, StripOutputDequantize):
            self._report.outputs = step.outputs
        if isinstance(step, CheckAccumulators):
            self._report.bounds = step.bounds
        self._dump(f"{phase}_{step.name}", mod)
        self._since = time.perf_counter()

    def end(self, mod: IRModule, _: Any) -> IRModule:
        """Forget what is a matter between passes, and declines of what is gone."""
        alive = {binding.var.name for binding in bindings_of(mod[MAIN])}
        declines = self._report.declines
        self._report.declines = {var: why for var, why in declines.items() if var in alive}
        return forget(mod)

    def _dump(self, name: str, mod: IRModule) -> None:
        """Write the module as TVMScript, numbered in the order of the passes."""
        if self._folder is None:
            return
        path = self._folder / f"{len(self._report.passes):02d}_{name}.py"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(forget(mod).script())
        except OSError as error:  # TVM would hand on a RuntimeError
            reason = error.strerror or str(error)
            raise VitqError(f"{path}: {reason}: give a folder that can be written") from error
