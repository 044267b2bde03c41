"""An ONNX QDQ file becomes an integer module: read, checked, imported, integerized."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.codegen.batching import run_in_batches
from vitq.compiler.foreign.facts import DEQUANTIZE, LAYOUT, QUANTIZE, Facts, label, op_of
from vitq.compiler.foreign.preparing import prepare
from vitq.compiler.foreign.reading import read_onnx
from vitq.compiler.foreign.refusal import Left, refusal
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError, reason
from vitq.numerics.families import Nonlinear
from vitq.quantization.graph.outputs import join

if TYPE_CHECKING:
    from vitq.compiler.foreign.importer import Named
    from vitq.relay_passes.pipeline import IntegerModule

Numbers = tuple[float, ...]
REMEDY = "if onnxruntime runs the file, please report it; else export it again"
QDQ = (QUANTIZE, DEQUANTIZE)
PLACE = re.compile(r"[\w.]+ \((?P<variable>\w+)\): ")
"""How passes begin what they say of one operator."""


@dataclass(frozen=True)
class Meaning:
    """What decides the integers beside the graph; absent values are looked up in the file.

    Attributes:
        batch: static batch size.
        mean: of the input's channels, for a foreign model that takes normalized floats.
        std: likewise.
        nonlinear: the family of integer nonlinear operators.
    """

    batch: int = 1
    mean: Numbers | None = None
    std: Numbers | None = None
    nonlinear: Nonlinear | None = None


@dataclass(frozen=True)
class ImportedModel:
    """An integer module and where it came from.

    Attributes:
        integer: from `relay_passes.pipeline.integerize`.
        input_name: of the file's input.
        output_names: of its outputs, in order.
        shape: (batch, C, H, W).
        meaning: with all that the file says.
        properties: the file's metadata.
    """

    integer: "IntegerModule"
    input_name: str
    output_names: tuple[str, ...]
    shape: tuple[int, ...]
    meaning: Meaning
    properties: dict[str, str]


def import_model(
    path: Path, given: Meaning, debug_dump: Path | None = None, called: Path | None = None
) -> ImportedModel:
    """Import and integerize.

    Args:
        path: the ``.onnx`` file.
        given: by the user; comes before what the file says.
        debug_dump: a folder for the IR after each pass.
        called: the user's own file, where `path` is our copy: messages name it.

    Returns:
        The integer module.

    Raises:
        VitqError: not ONNX, unsupported operators, float operators left, an accumulator that could
            overflow; what another library says of a file that it cannot take, with the node.
    """
    from vitq.compiler.foreign.importer import to_relax
    from vitq.relay_passes.pipeline import PassOptions

    shown = called or path
    model = read_onnx(path)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    meaning = _complete(given, stored, shown)
    prepared = prepare(model, given.batch, shown)
    mod, named = to_relax(prepared, shown)
    assert meaning.nonlinear is not None, "completed above"
    passes = PassOptions(mean=meaning.mean, std=meaning.std, nonlinear=meaning.nonlinear)
    refuse = partial(_refused, shown, prepared.model, named)
    integer = _integerized(mod, passes, debug_dump, refuse)
    return ImportedModel(
        integer, prepared.input_name, prepared.output_names, prepared.shape, meaning, stored
    )


def _integerized(
    mod: Any, passes: Any, debug_dump: Path | None, refuse: Callable[[Any, Exception], Exception]
) -> "IntegerModule":
    """Run the passes; `refuse` words what they raise."""
    from vitq.relay_passes.pipeline import Report, integerize

    report = Report()
    try:
        return integerize(mod, passes, debug_dump, report)
    except Exception as error:
        raise refuse(report, error) from error


def _refused(path: Path, model: Any, named: "Named", report: Any, error: Exception) -> Exception:
    """Word what the passes raised with the file's and its nodes' names."""
    facts = Facts(model)
    if report.islands:
        left = [
            Left(*named.of(island.var), island.reason.partition(": ")[2])
            for island in report.islands
        ]
        left = _each_once([one for one in left if one.op not in (*QDQ, *LAYOUT)] or left)
        number = "one operator" if len(left) == 1 else f"{len(left)} operators"
        what = f"not integer-only, {number} would stay float: "
        return refusal(path, what, left, facts)
    if isinstance(error, VitqError):
        return type(error)(f"{path}: {_with_node(str(error), named, facts)}")
    what = f"a pass cannot read it: {type(error).__name__}: {reason(error)}"
    return refusal(path, what, [], facts, REMEDY)


def _with_node(said: str, named: "Named", facts: Facts) -> str:
    """Name the file's node in place of a pass's operator and its variable.

    A quantizer stands for what it quantizes.
    """
    place = PLACE.match(said)
    if place is None:
        return said
    name, op = named.of(place["variable"])
    quantizer = next((node for node in facts.all_of(QUANTIZE) if label(node) == name), None)
    source = facts.before(quantizer.input[0]) if quantizer is not None else None
    if source is not None:
        name, op = label(source), op_of(source)
    return f"node {name} ({op}): {said[place.end() :]}" if op else said


def _each_once(left: list[Left]) -> list[Left]:
    """Of the parts of one operator keep one, which says why where any does."""
    found: dict[str, Left] = {}
    for one in left:
        if one.node not in found or (one.reason and not found[one.node].reason):
            found[one.node] = one
    return list(found.values())


def _complete(given: Meaning, stored: dict[str, str], path: Path) -> Meaning:
    """Fill in from the file's metadata what the user did not give."""
    mean, std = given.mean, given.std
    if mean is None and std is None:
        mean, std = (_numbers(stored, f"vitq.{key}", path) for key in ("mean", "std"))
    nonlinear = Nonlinear.parse(given.nonlinear or stored.get("vitq.nonlinear", Nonlinear.VITQ))
    return Meaning(given.batch, mean, std, nonlinear)


def _numbers(stored: dict[str, str], key: str, path: Path) -> Numbers | None:
    """Numbers separated by spaces."""
    if key not in stored:
        return None
    try:
        return tuple(float(word) for word in stored[key].split())
    except ValueError as error:
        raise VitqError(f"{path}: its metadata {key} is {stored[key]!r}, not numbers") from error


def interpreter_runner(model: ImportedModel) -> Callable[[UInt8Array], IntArray]:
    """Run the integer module on NumPy, for any number of pictures: a foreign model's reference."""
    from vitq.relay_passes.interpreter.interpreter import interpret

    def one_batch(pixels: UInt8Array) -> IntArray:
        return join(interpret(model.integer.mod, [pixels]), len(pixels))

    return lambda pixels: run_in_batches(one_batch, pixels, model.shape[0])
