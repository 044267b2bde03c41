"""A traced graph against the model itself, on pictures: no mistake of tracing stays silent.

    f   the model's own forward, in eval mode          |g - f|  <=  max(TOLERANCE * max|f|,
    g   the graph as it was traced, float32                             max|f(x * (1 + NUDGE)) - f|)

of each result, with the maxima over all pictures that are compared. Both sides compute in float32
and in another order: 1e-6 of max|f| is usual. The second bound is looked at only where the first
does not hold: it is what the model itself makes of pictures that differ by `NUDGE`, so that a model
that enlarges rounding is no mistake of the tracer's.

What differs is looked for with forward hooks. A module is right if any node of the graph that came
of it, or of what it holds, has its result (shape and values); modules are asked in the order in
which they return, so that the first that is not is the innermost.

A model that gives two results for the same pictures (dropout or noise drawn outside of PyTorch's
eyes, a count of calls) cannot be such a graph, and is told apart by a second call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.graph.results import tensors_of
from vitq.quantization.graph.user_code import user_code
from vitq.quantization.model.results import taken_tensors
from vitq.quantization.run.fake_quantize import GraphModule

COMPARED = 2
"""Pictures that are enough: a wrong operator shows on any."""
TOLERANCE = 2e-5
NUDGE = 1e-5

Tensors = dict[str, torch.Tensor]


class _Call(NamedTuple):
    """What a module returned."""

    name: str
    kind: str
    result: torch.Tensor


def check_traced(
    graph: Graph,
    module: torch.nn.Module,
    pixels: UInt8Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Refuse a graph that does not compute what its model does (module docstring).

    Args:
        graph: as traced; its input is the normalized picture.
        module: that it was traced from.
        pixels: (N, C, H, W), of which the first `COMPARED` count.
        mean: of the input's normalization.
        std: likewise.

    Raises:
        VitqError: it computes something else, or the model's results are random or not finite.
    """
    x = normalized(pixels[:COMPARED], mean, std)
    names = graph.layout.names
    with user_code("the model fails on calibration pictures"):
        wanted = _results(module, x, names)
        _refuse_infinite(wanted)
        found = graph.layout.split(GraphModule(graph)(x))
        wrong = [name for name in names if not _is_close(wanted[name], found[name], TOLERANCE)]
        if not wrong:
            return
        _refuse_random(module, x, names)
        nudged = _results(module, x * (1 + NUDGE), names)
    for name in wrong:
        allowed = max(TOLERANCE * _size(wanted[name]), _size(nudged[name] - wanted[name]))
        off = _size(found[name] - wanted[name])
        if not off <= allowed:
            raise VitqError(
                f"the traced graph is not the model: its result {name} differs by {off:.3g} on "
                f"calibration pictures (values up to {_size(wanted[name]):.3g}; allowed "
                f"{allowed:.2g}){_first_wrong(graph, module, x)}: a mistake of the tracer, unless "
                "the model does other things while torch.export looks: write that part in other "
                "operators, and report it"
            )


def normalized(pixels: UInt8Array, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Return pictures as a float model takes them.

    Args:
        pixels: (N, C, H, W).
        mean: of the channels, for pixels in [0, 1].
        std: likewise.

    Returns:
        (N, C, H, W) float32.
    """
    means, stds = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))
    return (torch.from_numpy(np.array(pixels)) / 255 - means) / stds


def _results(module: torch.nn.Module, x: torch.Tensor, names: tuple[str, ...]) -> Tensors:
    """Results of the model by the graph's names."""
    with torch.inference_mode():
        found = taken_tensors(module(x))
    if len(names) == 1 and len(found) == 1:
        return dict(zip(names, found.values(), strict=True))
    return {name: found[name] for name in names}


def _refuse_infinite(results: Tensors) -> None:
    for name, value in results.items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise VitqError(
                f"the model itself returns NaN or infinity on calibration pictures ({bad} of "
                f"{value.numel()} values of its result {name}): check its weights, and --mean and "
                "--std"
            )


def _size(x: torch.Tensor) -> float:
    return float(x.abs().max())


def _is_close(wanted: torch.Tensor, found: torch.Tensor, tolerance: float) -> bool:
    """Whether all values are alike, measured by the largest that is wanted."""
    if wanted.shape != found.shape:
        return False
    return bool(((found - wanted).abs() <= tolerance * _size(wanted)).all())


def _refuse_random(module: torch.nn.Module, x: torch.Tensor, names: tuple[str, ...]) -> None:
    """Refuse a model whose second call returns something else than the first."""
    calls, others = _calls(module, x), _calls(module, x)
    pairs = zip(calls, others, strict=False)
    first = next((a for a, b in pairs if not torch.equal(a.result, b.result)), None)
    if first is None:
        return
    raise VitqError(
        "the model returns other results for the same pictures at each call"
        f"{_named(first)}: it draws random numbers (a dropout or noise that eval() does not reach) "
        "or counts its calls: switch that off"
    )


def _first_wrong(graph: Graph, module: torch.nn.Module, x: torch.Tensor) -> str:
    """Return in words the first module whose result no node of it has; nothing if all are right."""
    values: list[tuple[Node, torch.Tensor]] = []
    GraphModule(graph, observer=lambda node, value: values.append((node, value)))(x)
    for call in _calls(module, x):
        same = [
            value
            for node, value in values
            if f"{node.module}.".startswith(f"{call.name}." if call.name else "")
            and value.shape == call.result.shape
        ]
        if same and not any(_is_close(call.result, value, TOLERANCE) for value in same):
            return _named(call)
    return ""


def _named(call: _Call) -> str:
    return f", first in {call.name} ({call.kind})" if call.name else ""


def _calls(module: torch.nn.Module, x: torch.Tensor) -> list[_Call]:
    """Run a model once; what its modules returned, in the order in which they did."""
    calls: list[_Call] = []
    with _watched(module, calls), torch.inference_mode():
        result = module(x)
    calls += [_Call("", "", value.clone()) for _, value in tensors_of(result, torch.Tensor)]
    return calls


@contextmanager
def _watched(module: torch.nn.Module, calls: list[_Call]) -> Iterator[None]:
    """Note the results of all modules within a model while it runs."""

    def noting(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(inner: torch.nn.Module, args: object, result: object) -> None:
            if isinstance(result, torch.Tensor):  # cloned: the next may write into it
                calls.append(_Call(name, type(inner).__name__, result.clone()))

        return module.get_submodule(name).register_forward_hook(note)

    handles = [noting(name) for name, _ in module.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
