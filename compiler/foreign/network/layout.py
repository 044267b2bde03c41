"""Operators that move values, and that make shapes."""

from typing import Any

import numpy as np
import torch

from vitq.compiler.foreign.network.call import Call, operator
from vitq.compiler.foreign.network.values import (
    Host,
    Value,
    is_host,
    numbers,
    sizes_of,
    to_tensor,
)
from vitq.numerics.errors import VitqError

LARGEST_INDEX = 2**31
"""Ends of slices beyond it stand for the end of the axis."""


@operator("Shape")
def shape(call: Call) -> Host:
    """Return the sizes of a tensor."""
    x = call.value(0)
    found = np.array(x.shape) if isinstance(x, np.ndarray) else sizes_of(x)
    end = call.get("end")
    return found[call.get("start", 0) : len(found) if end is None else end]


@operator("Size")
def size(call: Call) -> Host:
    """Return the number of elements."""
    return np.asarray(np.prod(shape(call)))


@operator("Identity", "Dropout")
def identity(call: Call) -> Value:
    """Return what is read: nothing is dropped in a deployed network."""
    return call.value(0)


@operator("Reshape")
def reshape(call: Call) -> Value:
    """Give another shape; a file of a fixed batch has it in the first size."""
    x, wanted = call.value(0), numbers(call.host(1))
    if not call.get("allowzero", 0):
        wanted = [x.shape[i] if n is not None and _is(n, 0) else n for i, n in enumerate(wanted)]
    if isinstance(x, np.ndarray):
        return x.reshape([int(n) for n in wanted])
    if wanted and 1 in call.arrays and not _is(call.arrays[1][0], 0):
        wanted[0] = call_batch(call, wanted[0])
    return x.reshape(wanted)


def call_batch(call: Call, size: Any) -> Any:
    """Return a first size of the file for the number of pictures there are now."""
    fixed = call.batch_of_file
    return size // fixed * call.batch if fixed and size > 0 and size % fixed == 0 else size


def _is(value: Any, number: int) -> bool:
    """Whether a size is a number; comparing a symbol would make torch decide it."""
    return isinstance(value, int | np.integer) and int(value) == number


@operator("Flatten")
def flatten(call: Call) -> torch.Tensor:
    """Make a matrix."""
    x, axis = call.x(), call.get("axis", 1)
    if axis % x.ndim == 1:
        return x.flatten(1)
    raise VitqError(f"Flatten at axis {axis}")


@operator("Transpose")
def transpose(call: Call) -> Value:
    """Permute axes."""
    x = call.value(0)
    order = call.get("perm") or list(reversed(range(x.ndim)))
    return x.transpose(order) if isinstance(x, np.ndarray) else x.permute(order)


@operator("Unsqueeze")
def unsqueeze(call: Call) -> Value:
    """Insert axes of size 1."""
    x, axes = call.value(0), call.axes() or []
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, tuple(axes))
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Squeeze")
def squeeze(call: Call) -> Value:
    """Remove axes of size 1."""
    x, axes = call.value(0), call.axes()
    if isinstance(x, np.ndarray):
        return x.squeeze() if axes is None else x.squeeze(tuple(axes))
    axes = [i for i in range(1, x.ndim) if _is(x.shape[i], 1)] if axes is None else axes
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.squeeze(axis)
    return x


@operator("Concat")
def concat(call: Call) -> Value:
    """Join along an axis; constants are repeated for each picture."""
    parts, axis = [call.value(i) for i in range(len(call.operands))], call.get("axis")
    if all(is_host(part) for part in parts):
        return _joined(parts, axis)
    tensors = [to_tensor(part) for part in parts]
    if axis % tensors[0].ndim and not all(_is(t.shape[0], 1) for t in tensors):
        tensors = [_for_each(call, t) for t in tensors]
    return torch.cat(tensors, axis)


def _joined(parts: list[Any], axis: int) -> Host:
    """Join on the host; whatever the types, sizes stay what they are."""
    kinds = [part.astype(object) if part.dtype.kind in "iu" else part for part in parts]
    return np.concatenate(kinds, axis)


def _for_each(call: Call, tensor: torch.Tensor) -> torch.Tensor:
    """Repeat what stands once, or as often as the file has pictures."""
    if not any(_is(tensor.shape[0], count) for count in (1, call.batch_of_file or 1)):
        return tensor
    return tensor[:1].expand(call.batch, *tensor.shape[1:])


@operator("Expand", "Tile")
def expand(call: Call) -> Value:
    """Broadcast to a shape, or repeat."""
    x, wanted = call.value(0), numbers(call.host(1))
    if not all(isinstance(n, int) for n in wanted):
        x = to_tensor(x)
    if isinstance(x, np.ndarray):
        sized = [int(n) for n in wanted]
        if call.op == "Tile":
            return np.tile(x, sized)
        return np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sized))))
    if call.op == "Tile":
        return x.repeat(wanted)
    lead = [1] * (len(wanted) - x.ndim) + list(x.shape)
    sizes = [have if _is(want, 1) else want for have, want in zip(lead, wanted, strict=False)]
    return x.expand([*lead[: len(lead) - len(wanted)], *sizes])


@operator("Slice")
def slice_(call: Call) -> Value:
    """Take a range of each axis; bounds are attributes of the oldest opsets."""
    x = call.value(0)
    if call.has(1):
        starts, ends = numbers(call.host(1)), numbers(call.host(2))
    else:
        starts, ends = list(call.get("starts")), list(call.get("ends"))
    axes = call.axes(3) or list(range(len(starts)))
    steps = numbers(call.host(4)) if call.has(4) else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = _sliced(x, int(axis) % x.ndim, start, end, int(step))
    return x


def _sliced(x: Value, axis: int, start: Any, end: Any, step: int) -> Value:
    """Take a range of one axis."""
    if step < 0 and isinstance(x, torch.Tensor):
        size = int(x.shape[axis])
        order = list(range(size))[_bound(start) : _bound(end) : step]
        return x.index_select(axis, torch.tensor(order))
    index: list[Any] = [slice(None)] * x.ndim
    index[axis] = slice(_bound(start), _bound(end), step)
    return x[tuple(index)]


def _bound(value: Any) -> Any:
    """Return a slice's bound; None for one at the end of any axis."""
    if isinstance(value, int | np.integer) and abs(int(value)) >= LARGEST_INDEX:
        return None
    return value


@operator("Split")
def split(call: Call) -> list[torch.Tensor]:
    """Cut along an axis; sizes are an attribute of older opsets."""
    x, axis = call.x(), call.get("axis", 0)
    sizes = numbers(call.host(1)) if call.has(1) else call.get("split")
    if sizes is None:
        count = call.get("num_outputs", call.outputs)
        return list(x.split(-(-int(x.shape[axis]) // count), axis))
    return list(x.split([int(n) for n in sizes], axis))


@operator("Gather")
def gather(call: Call) -> Value:
    """Take elements of one axis by constant indices."""
    x, axis, index = call.value(0), call.get("axis", 0), call.host(1)
    if isinstance(x, np.ndarray):
        return np.asarray(np.take(x, index.astype(np.int64), axis))
    axis = axis % x.ndim
    if index.ndim == 0:
        return x.select(axis, int(index))
    size = int(x.shape[axis])
    wanted = torch.from_numpy(np.array(index, dtype=np.int64).reshape(-1) % size)
    found = x.index_select(axis, wanted)
    if index.ndim == 1:
        return found
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


@operator("Range")
def range_(call: Call) -> Host:
    """Return the numbers between two."""
    bounds = [np.asarray(call.host(i)).reshape(-1)[0] for i in range(3)]
    return np.arange(*bounds)


@operator("ConstantOfShape")
def constant_of_shape(call: Call) -> Value:
    """Return a number, repeated."""
    value = np.asarray(call.get("value", np.zeros(1, np.float32))).reshape(-1)[0]
    sizes = call.host(0)
    if sizes.dtype == object:
        return torch.full(numbers(sizes), value.item())
    return np.full([int(n) for n in sizes], value)


@operator("Trilu")
def trilu(call: Call) -> Value:
    """Keep one side of the diagonal."""
    k = int(call.host(1).reshape(-1)[0]) if call.has(1) else 0
    x, upper = call.value(0), bool(call.get("upper", 1))
    if isinstance(x, np.ndarray):
        return np.triu(x, k) if upper else np.tril(x, k)
    return torch.triu(x, k) if upper else torch.tril(x, k)


@operator("DepthToSpace", "SpaceToDepth")
def shuffle(call: Call) -> torch.Tensor:
    """Move channels into pixels, or back."""
    block, x = call.get("blocksize"), call.x()
    if call.op == "SpaceToDepth":
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(b, -1, h // block, w // block)
    if call.get("mode", "DCR") == "CRD":
        return torch.nn.functional.pixel_shuffle(x, block)
    b, c, h, w = x.shape
    x = x.reshape(b, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, -1, h * block, w * block)


@operator("Pad")
def pad(call: Call) -> torch.Tensor:
    """Pad with a number."""
    if call.get("mode", "constant") != "constant":
        raise VitqError(f"Pad by {call.get('mode')}")
    x = call.x()
    amounts = numbers(call.host(1)) if call.has(1) else call.get("pads")
    value = (call.number(2) or 0.0) if call.has(2) else call.get("value", 0.0)
    axes = call.axes(3) or list(range(x.ndim))
    before_after = [[0, 0] for _ in range(x.ndim)]
    for i, axis in enumerate(axes):
        before_after[axis] = [int(amounts[i]), int(amounts[i + len(axes)])]
    flat = [n for pair in reversed(before_after) for n in pair]
    while flat and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return torch.nn.functional.pad(x, flat, value=value) if flat else x
