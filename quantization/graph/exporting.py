"""``torch.export`` of a float model, with errors that name the user's line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.user_code import explained

logger = logging.getLogger(__name__)

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
        with _quiet():
            program = torch.export.export(
                model.eval(), (example,), dynamic_shapes=({0: batch},), strict=False
            )
    except VitqError:
        raise
    except Exception as error:
        what = f"the model cannot be exported by torch.export at input {input_shape}"
        raise explained(what, error) from error
    program.graph.eliminate_dead_code()  # results beside the logits
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what its exception says, too; not with ``-v``."""
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
