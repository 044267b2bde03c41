"""Brings a file into the form that the importer takes: one input, static shapes, checked.

    what files do                            what becomes of it
    initializers are listed as inputs        they are constants
    (N, C, H, W) with a symbolic N           N is the batch that is compiled for
    (N, H, W, C), transposed at once         the input is (N, C, H, W), the Transpose goes away
    sizes that contradict each other         refused, with the node's name

Only shapes are evaluated (`shapes`); other constants are `relay_passes.fold_constants`' matter.
"""

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

from vitq.compiler.foreign.facts import Facts, label
from vitq.compiler.foreign.refusal import refusal
from vitq.compiler.foreign.shapes import fold_shapes
from vitq.compiler.support.limits import LARGEST_BATCH, LARGEST_SIDE
from vitq.numerics.errors import VitqError, reason

logger = logging.getLogger(__name__)

CHANNELS = (1, 3, 4)
TO_CHANNELS_FIRST = (0, 3, 1, 2)
MADE_FOR = "it may be made for another batch than {}: compile with --batch 1"
NODE = re.compile(r"\(op_type: ?(\w+)(?:, node name: ([^)]*))?\): *")
"""How onnx names a node in front of what is wrong with it."""


class Prepared(NamedTuple):
    """A model that can be imported.

    Attributes:
        model: the ``onnx.ModelProto``.
        input_name: of the pictures.
        output_names: of the results, in order.
        shape: (batch, C, H, W).
    """

    model: Any
    input_name: str
    output_names: tuple[str, ...]
    shape: tuple[int, ...]


def prepare(model: Any, batch: int, path: Path) -> Prepared:
    """Bring a model into one form; it is changed.

    Args:
        model: from `read_onnx`.
        batch: to compile for.
        path: for messages.

    Returns:
        The model with static, consistent shapes.

    Raises:
        VitqError: several inputs, no output, sizes that are not fixed, shapes that contradict.
    """
    drop_initializers(model.graph)
    facts = Facts(model)
    pictures, results = ends_of(facts, path)
    channels_first(facts, pictures)
    shape = _shape_of(pictures, path, batch)
    dims = pictures.type.tensor_type.shape.dim
    dims[0].Clear()
    dims[0].dim_value = batch
    _require_scales(facts, path)
    names = pictures.name, tuple(value.name for value in results)
    model = _inferred(model, batch, path)
    while fold_shapes(model):
        model = _inferred(model, batch, path)
    return Prepared(model, *names, shape)


def drop_initializers(graph: Any) -> None:
    """Take constants that are listed as inputs, as older files have it, off the inputs.

    Args:
        graph: the ``onnx.GraphProto``; edited in place.
    """
    known = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in known]
    if len(kept) < len(graph.input):
        del graph.input[:]
        graph.input.extend(kept)


def ends_of(facts: Facts, path: Path) -> tuple[Any, Any]:
    """Return the one input and the outputs.

    Args:
        facts: of the model; its inputs are no constants.
        path: for messages.

    Raises:
        VitqError: several inputs, or an output that nothing computes.
    """
    graph = facts.graph
    if len(graph.input) != 1 or not graph.output:
        inputs, outputs = (
            ", ".join(value.name for value in values[:4]) or "none"
            for values in (graph.input, graph.output)
        )
        raise VitqError(
            f"{path} must have one input (pictures) and outputs (logits, or features); it has "
            f"{len(graph.input)} ({inputs}) and {len(graph.output)} ({outputs}): export a model "
            "whose forward takes pictures and returns logits, or cut the file with "
            "onnx.utils.extract_model"
        )
    for value in graph.output:
        if value.name not in facts.made:
            raise VitqError(f"{path}: no operator computes its output {value.name}")
    return graph.input[0], list(graph.output)


def _sizes(value: Any) -> list[int]:
    """Return a tensor's sizes, 0 where they are not fixed."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def picture_sizes(pictures: Any, path: Path) -> list[int]:
    """Return the four sizes of the input, 0 where one is not fixed.

    Args:
        pictures: the model's input.
        path: for messages.

    Raises:
        VitqError: it has another number of dimensions.
    """
    sizes = _sizes(pictures)
    if len(sizes) != 4:
        raise VitqError(
            f"{path}: its input {pictures.name} has {len(sizes)} dimensions: it must be pictures "
            "(N, C, H, W)"
        )
    return sizes


def channels_first(facts: Facts, pictures: Any) -> None:
    """Take a Transpose away that only brings (N, H, W, C) into our order, perhaps behind a Cast.

    Args:
        facts: of the model, which is edited in place.
        pictures: its input.
    """
    name, steps = pictures.name, []
    while True:
        readers = facts.readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type not in ("Cast", "Transpose"):
            return
        steps.append(readers[0])
        name = readers[0].output[0]
        if readers[0].op_type == "Transpose":
            break
    perm = next((tuple(a.ints) for a in steps[-1].attribute if a.name == "perm"), ())
    sizes = pictures.type.tensor_type.shape
    if perm != TO_CHANNELS_FIRST or len(sizes.dim) != 4 or sizes.dim[3].dim_value not in CHANNELS:
        return
    moved = [sizes.dim[axis] for axis in perm]
    copies = [type(dim).FromString(dim.SerializeToString()) for dim in moved]
    del sizes.dim[:]
    sizes.dim.extend(copies)
    steps[-1].op_type = "Identity"
    del steps[-1].attribute[:]
    stale = {value.name for value in facts.graph.value_info} & {s.output[0] for s in steps}
    kept = [value for value in facts.graph.value_info if value.name not in stale]
    del facts.graph.value_info[:]
    facts.graph.value_info.extend(kept)
    logger.info("the file takes (N, H, W, C): the library takes (N, C, H, W), as all of them do")


def _shape_of(pictures: Any, path: Path, batch: int) -> tuple[int, ...]:
    """(batch, C, H, W) of the input."""
    sizes = picture_sizes(pictures, path)
    if sizes[3] in CHANNELS and sizes[1] not in CHANNELS:
        raise VitqError(
            f"{path}: its input {pictures.name} is (N, H, W, C): export a model that takes "
            "(N, C, H, W), or that transposes before it computes anything"
        )
    if any(size < 1 for size in sizes[1:]):
        raise VitqError(
            f"{path}: its input {pictures.name} must be (N, C, H, W) with fixed C, H and W: export "
            "with a fixed picture size (dynamic_axes or dynamic_shapes for N only), or set it: "
            "python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name "
            f"{pictures.name} --input_shape 1,3,224,224"
        )
    if max(sizes[1:]) > LARGEST_SIDE or batch > LARGEST_BATCH:
        raise VitqError(
            f"{path}: pictures of {'x'.join(map(str, sizes[1:]))}, {batch} at a time: at most "
            f"{LARGEST_SIDE} a side and {LARGEST_BATCH} at a time"
        )
    if sizes[0] not in (0, batch):
        raise VitqError(f"{path} has a fixed batch of {sizes[0]}: compile with --batch {sizes[0]}")
    return (batch, *sizes[1:])


def _require_scales(facts: Facts, path: Path) -> None:
    """Refuse constant scales that are none, and zero points of another number.

    Raises:
        VitqError: naming the quantizer.
    """
    import numpy as np

    for node in facts.all_of("QuantizeLinear", "DequantizeLinear"):
        scale = facts.array(node.input[1]) if len(node.input) > 1 else None
        zero = facts.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        where = f"{path}: quantizer {label(node)}"
        if scale is not None:
            bad = ~(np.isfinite(scale.astype(np.float64)) & (scale > 0))
            if scale.size == 0 or bad.any():
                value = scale[bad].reshape(-1)[0] if scale.size else "missing"
                raise VitqError(f"{where} has the scale {value}: it must be positive and finite")
        if scale is not None and zero is not None and zero.shape not in ((), (1,), scale.shape):
            raise VitqError(
                f"{where} has scales of shape {scale.shape} and zero points of shape {zero.shape}: "
                "they must be the same"
            )


def _inferred(model: Any, batch: int, path: Path) -> Any:
    """Infer all shapes from the input's.

    Raises:
        VitqError: they contradict each other; the node is named.
    """
    import onnx

    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except ValueError:
        return model  # over 2 GB: onnx cannot copy it
    except Exception as error:
        said, where = reason(error), ""
        found = NODE.search(said)
        if found is not None:
            where = f"node {found[2] or 'without a name'} ({found[1]}): "
            said = said[found.end() :]
        what = f"{where}its shapes or types contradict each other: {said}"
        remedy = "export the model again"
        if batch != 1:
            remedy = f"{MADE_FOR.format(batch)}, or {remedy}"
        raise refusal(path, what, [], Facts(model), remedy) from error
    return inferred
