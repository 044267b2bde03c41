"""``torch.export`` of a float model, with errors that name the user's line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.user_code import explained, prints_aside

logger = logging.getLogger(__name__)

USUAL_SIDES = (224, 32, 28, 64, 96, 112, 128, 160, 192, 240, 256, 288, 320, 384, 448, 512, 518)
"""Sides of pictures that models are built for, the most usual first; tried where one fails."""
PAIRS: dict[Any, Any] = {
    torch.ops.aten.var_mean: torch.ops.aten.var,
    torch.ops.aten.std_mean: torch.ops.aten.std,
}
"""Operator of a spread and a mean -> that of the spread."""
TRACE_BATCH = 2  # torch.export specializes 0 and 1


def export_program(
    model: torch.nn.Module, input_shape: tuple[int, int, int]
) -> torch.export.ExportedProgram:
    """Export a model in eval mode, for any number of pictures.

    Args:
        model: takes float32 pictures (N, C, H, W).
        input_shape: (C, H, W).

    Returns:
        The program.

    Raises:
        VitqError: if it does not export.
    """
    example = torch.zeros(TRACE_BATCH, *input_shape)
    batch = torch.export.Dim("batch")
    try:
        with quiet(), prints_aside():
            program = torch.export.export(
                model.eval(), (example,), dynamic_shapes=({0: batch},), strict=False
            )
    except VitqError:
        raise
    except Exception as error:
        _refuse_size(model, input_shape)
        what = f"the model cannot be exported by torch.export at input {input_shape}"
        raise explained(what, error) from error
    split_pairs(program.graph)
    return program


def split_pairs(graph: torch.fx.Graph) -> None:
    """Replace operators that return a spread and a mean by the two that return one each.

        var_mean(x)[0], var_mean(x)[1]  ->  var(x), mean(x)

    Args:
        graph: of a program, changed in place; a pair over all of x stays, as ``var`` of all does.
    """
    for node in list(graph.nodes):
        first = PAIRS.get(getattr(node.target, "overloadpacket", None))
        if first is None or len(node.args) + ("dim" in node.kwargs) < 2:
            continue
        keeps = node.kwargs.get("keepdim", node.args[3] if len(node.args) > 3 else False)
        axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        with graph.inserting_before(node):
            spread = getattr(first, node.target._overloadname)
            parts = (
                graph.call_function(spread, node.args, dict(node.kwargs)),
                graph.call_function(torch.ops.aten.mean.dim, (node.args[0], axes, keeps)),
            )
        for part, value in zip(parts, node.meta["val"], strict=True):
            part.meta = {**node.meta, "val": value}
        for reader in list(node.users):  # getitem
            reader.replace_all_uses_with(parts[reader.args[1]])
            graph.erase_node(reader)
        graph.erase_node(node)


def _refuse_size(model: torch.nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Refuse a picture's size that the model does not run at, if it runs at a usual one.

    Raises:
        VitqError: with that size.
    """
    channels, height, width = input_shape
    if _runs(model, input_shape):
        return
    usual = [side for side in USUAL_SIDES if (side, side) != (height, width)]
    taken = next((side for side in usual if _runs(model, (channels, side, side))), None)
    if taken is not None:
        raise VitqError(
            f"the model does not take pictures of {height} x {width}, and it takes {taken} x "
            f"{taken}: give --image-size {taken} (pictures are resized), or let your code build "
            "it for the other size"
        )


def _runs(model: torch.nn.Module, input_shape: tuple[int, int, int]) -> bool:
    """Whether the model computes anything of a picture of that shape."""
    try:
        with torch.inference_mode(), quiet():
            model.eval()(torch.zeros(1, *input_shape))
    except Exception:  # whatever a user's code raises
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries from logging what their exception or report says, too; not with ``-v``."""
    before = logging.root.manager.disable
    if not logger.isEnabledFor(logging.DEBUG):
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def shape_at_one(value: Any) -> tuple[tuple[int, ...], int | None]:
    """Shape at batch 1 and the axis that grows with the batch."""
    dims: list[int] = []
    batch_axis = None
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            dims.append(dim)
            continue
        expression = dim.node.expr
        dims.append(int(expression.subs(dict.fromkeys(expression.free_symbols, 1))))
        batch_axis = axis
    return tuple(dims), batch_axis


def float32(value: float) -> float:
    """Return the number that a float32 constant of the exported file will hold."""
    return float(np.float32(value))
