"""An ONNX QDQ file becomes an integer module: read, checked, imported, integerized."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.codegen.batching import run_in_batches
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear

if TYPE_CHECKING:
    from vitq.relay_passes.pipeline import IntegerModule

Numbers = tuple[float, ...]

SUPPORTED_ONNX_OPS = frozenset(
    "Add Cast Clip Concat Constant ConstantOfShape Conv DequantizeLinear Div Equal Erf Exp Expand "
    "Flatten Floor Gather Gelu Gemm Greater Identity LayerNormalization MatMul Mul Pow "
    "QuantizeLinear ReduceMax ReduceMean ReduceSum Reshape Shape Slice Softmax Split Sqrt Squeeze "
    "Sub Tanh Transpose Unsqueeze Where".split()
)


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
        output_name: of its output.
        shape: (batch, C, H, W).
        meaning: with all that the file says.
        properties: the file's metadata.
    """

    integer: "IntegerModule"
    input_name: str
    output_name: str
    shape: tuple[int, ...]
    meaning: Meaning
    properties: dict[str, str]


def import_model(path: Path, given: Meaning, debug_dump: Path | None = None) -> ImportedModel:
    """Import and integerize.

    Args:
        path: the ``.onnx`` file.
        given: by the user; comes before what the file says.
        debug_dump: a folder for the IR after each pass.

    Returns:
        The integer module.

    Raises:
        VitqError: not ONNX, unsupported operators, float operators left, an accumulator that could
            overflow.
    """
    from tvm.relax.frontend.onnx import from_onnx

    from vitq.relay_passes.pipeline import PassOptions, integerize

    model = read_onnx(path)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    meaning = _complete(given, stored, path)
    shape = _input_shape(model, path, given.batch)
    name = model.graph.input[0].name
    imported = from_onnx(model, shape_dict={name: list(shape)})
    assert meaning.nonlinear is not None, "completed above"
    passes = PassOptions(mean=meaning.mean, std=meaning.std, nonlinear=meaning.nonlinear)
    integer = integerize(imported, passes, debug_dump)
    return ImportedModel(integer, name, model.graph.output[0].name, shape, meaning, stored)


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


def read_onnx(path: Path) -> Any:
    """Read and check an ONNX file.

    Raises:
        VitqError: not ONNX, damaged, or with operators that no pass understands (all listed).
    """
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VitqError(f"{path} is not a readable ONNX file (truncated?): {line}") from error
    ops = Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in model.graph.node
    )
    unknown = sorted((op, count) for op, count in ops.items() if op not in SUPPORTED_ONNX_OPS)
    if unknown:
        listed = ", ".join(f"{op} (x{count})" for op, count in unknown)
        raise VitqError(f"{path} uses operators that are not supported: {listed}")
    return model


def _input_shape(model: Any, path: Path, batch: int) -> tuple[int, ...]:
    """(batch, C, H, W) of the one input."""
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise VitqError(f"{path} must have one input (pictures) and one output (logits)")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims]
    if len(sizes) != 4 or any(size < 1 for size in sizes[1:]):
        raise VitqError(f"{path}: the input must be (N, C, H, W) with fixed C, H and W")
    if sizes[0] not in (0, batch):
        raise VitqError(f"{path} has a fixed batch of {sizes[0]}: compile with --batch {sizes[0]}")
    return (batch, *sizes[1:])


def interpreter_runner(model: ImportedModel) -> Callable[[UInt8Array], IntArray]:
    """Run the integer module on NumPy, for any number of pictures: a foreign model's reference."""
    from vitq.relay_passes.interpreter.interpreter import interpret

    def one_batch(pixels: UInt8Array) -> IntArray:
        codes: IntArray = interpret(model.integer.mod, [pixels])[0]
        return codes

    return lambda pixels: run_in_batches(one_batch, pixels, model.shape[0])
