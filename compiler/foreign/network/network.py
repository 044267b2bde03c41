"""A float ONNX graph as a PyTorch module.

    file -> constants (folded) -> one `Step` for each operator that is left -> results

A step computes its operator by PyTorch's own function (`OPERATORS`), so that what follows
(``torch.export``, the tracer's spellings, importance by gradients, pictures from the model) is the
same as for a model of PyTorch. Steps stand in a tree that is named as the file names its nodes:
``/blocks/blocks.0/attn/qkv/MatMul`` is the module ``blocks.0.attn.qkv.MatMul``.

Shapes that are computed run on the host (`values`), with a symbol for the number of pictures. A
file that is made for one batch says it in the first size of its reshapes, which is replaced;
`parity` holds the module against the file.
"""

import ast
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from vitq.compiler.foreign.facts import label
from vitq.compiler.foreign.network import arithmetic, layers, layout, quantizers
from vitq.compiler.foreign.network.call import OPERATORS, Call
from vitq.compiler.foreign.network.values import Host, Value, plain
from vitq.numerics.errors import VitqError, reason

__all__ = ["Network", "arithmetic", "layers", "layout", "quantizers"]

LARGEST_KEPT = 4096
"""Elements of a constant whose values an operator may ask for while it is exported."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's newer exporter notes the modules of a node."""
_UNSAFE = re.compile(r"\W+")


class Line(NamedTuple):
    """One step of the plan.

    Attributes:
        step: what is computed.
        reads: names of the operands that are no constants.
        makes: names of the results.
        frees: names that nobody reads behind it.
    """

    step: "Step"
    reads: list[str]
    makes: list[str]
    frees: list[str]


class Step(torch.nn.Module):
    """One operator of the file.

    Args:
        node: the ``onnx.NodeProto``.
        opset: of its domain.
        batch_of_file: that the file is made for; 0 for any.
        constants: operands by their number.
    """

    def __init__(
        self, node: Any, opset: int, batch_of_file: int, constants: Mapping[int, Host]
    ) -> None:
        super().__init__()
        self.op = node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
        self.label = label(node)
        self.settings = _attributes(node)
        self.opset, self.batch_of_file = opset, batch_of_file
        self.given = [bool(name) for name in node.input]
        self.outputs = len(node.output)
        self.arrays = {i: v for i, v in constants.items() if _is_kept(v)}
        self.floats = [i for i, value in constants.items() if value.dtype.kind == "f"]
        for i in self.floats:
            wide = torch.from_numpy(np.array(constants[i], dtype=np.float32))
            self.register_buffer(f"operand{i}", wide)

    def forward(self, batch: Any, *live: Value) -> list[Value | None]:
        """Compute the results.

        Args:
            batch: number of pictures.
            live: the operands that are no constants, in order.
        """
        rest = iter(live)
        operands = [
            None if not given
            else getattr(self, f"operand{i}") if i in self.floats
            else self.arrays[i] if i in self.arrays
            else next(rest)
            for i, given in enumerate(self.given)
        ]  # fmt: skip
        call = Call(
            self.op, self.settings, operands, self.arrays, self.outputs, self.opset, batch,
            self.batch_of_file,
        )  # fmt: skip
        try:
            found = OPERATORS[self.op](call)
        except VitqError as error:
            raise VitqError(f"node {self.label} ({self.op}): {error}") from error
        except Exception as error:  # whatever PyTorch and NumPy raise for what does not fit
            said = f"{type(error).__name__}: {reason(error)}"
            raise VitqError(f"node {self.label} ({self.op}): {said}") from error
        results = found if isinstance(found, list) else [found]
        return [plain(value) if isinstance(value, np.ndarray) else value for value in results]

    def extra_repr(self) -> str:
        """Say all that decides the result beside the buffers."""
        digest = hashlib.sha256()
        for i, value in sorted(self.arrays.items()):
            digest.update(f"{i}{value.shape}{value.dtype}".encode() + value.tobytes())
        settings = {key: _written(value) for key, value in sorted(self.settings.items())}
        return f"{self.op} {self.opset} {settings} {self.given} {digest.hexdigest()[:16]}"


def _is_kept(value: Host) -> bool:
    return value.dtype.kind != "f" or value.size <= LARGEST_KEPT


def _written(value: Any) -> Any:
    """Return an attribute as text tells it apart."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()[:16]
    return value


def _attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python's and NumPy's values."""
    import onnx

    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.TensorProto):
            value = array_of(value)
        elif isinstance(value, onnx.GraphProto):
            raise VitqError(f"node {label(node)} ({node.op_type}) runs a graph of its own")
        found[attribute.name] = value
    return found


def array_of(tensor: Any) -> Host:
    """Return a tensor of the file; narrow floats as float32.

    Args:
        tensor: an ``onnx.TensorProto``.

    Raises:
        VitqError: it holds texts, or other bytes than its shape says.
    """
    from onnx import numpy_helper

    try:
        value = numpy_helper.to_array(tensor)
        return np.array(value, dtype=None if value.dtype.kind in "iub" else np.float32)
    except Exception as error:  # whatever onnx and NumPy raise for fields that contradict
        raise VitqError(f"the tensor {tensor.name} cannot be read: {reason(error)}") from error


class Network(torch.nn.Module):
    """The module.

    Args:
        model: a checked ``onnx.ModelProto`` with tensors, functions inlined.
        input_name: of the pictures.
        output_names: of the results.
        size: (H, W) that the file is made for; None for any.
        channels: of the pictures.
        batch: that the file is made for; 0 for any.
        channels_last: whether the file takes (N, H, W, C).

    Attributes:
        image_size: `size`.
        in_chans: `channels`.
        batch: as given.
        channels_last: as given.
        output_names: as given.

    Raises:
        VitqError: an operator that is not known (all are named), or in a form that is not.
    """

    def __init__(
        self,
        model: Any,
        input_name: str,
        output_names: tuple[str, ...],
        size: tuple[int, int] | None,
        channels: int,
        batch: int,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.image_size, self.in_chans = size, channels
        self.batch, self.channels_last = batch, channels_last
        self.input_name, self.output_names = input_name, output_names
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.plan: list[Line] = []
        known = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
        for node in model.graph.node:
            self._add(node, opsets.get(node.domain, 1), batch, known)
        constant = [name for name in output_names if name in known]
        if constant:
            raise VitqError(f"the result {constant[0]} does not depend on the pictures")
        _free(self.plan, set(output_names))

    def _add(self, node: Any, opset: int, batch: int, known: dict[str, Host]) -> None:
        """Append a node's step, or compute it if all it reads is known."""
        if node.op_type == "Constant":
            found = next(iter(_attributes(node).values()))
            known[node.output[0]] = np.asarray(found, *_types(found))
            return
        constants = {i: known[name] for i, name in enumerate(node.input) if name in known}
        step = Step(node, opset, batch, constants)
        if len(constants) == sum(step.given):
            with torch.inference_mode():
                results = step(1)
            for name, value in zip(node.output, results, strict=False):
                if name and value is not None:
                    known[name] = value if isinstance(value, np.ndarray) else value.numpy()
            return
        reads = [name for name in node.input if name and name not in known]
        self.plan.append(Line(step, reads, list(node.output), []))
        _place(self, _path(node), step)

    def forward(self, pictures: torch.Tensor) -> Any:
        """Compute the results of pictures.

        Args:
            pictures: (N, C, H, W) float32, normalized as the file expects it.

        Returns:
            A tensor, or by name where there are several.

        Raises:
            VitqError: another size than the file's, or what an operator refuses.
        """
        size = tuple(pictures.shape[-2:])
        if self.image_size not in (None, size):
            height, width = self.image_size
            side = height if height == width else f"{height},{width}"
            raise VitqError(
                f"the file is made for pictures of {height} x {width}: give --image-size {side}"
            )
        x = pictures.permute(0, 2, 3, 1) if self.channels_last else pictures
        values: dict[str, Any] = {self.input_name: x}
        for step, reads, makes, frees in self.plan:
            results = step(pictures.shape[0], *(values[name] for name in reads))
            values.update(zip(makes, results, strict=False))
            for name in frees:
                values.pop(name, None)
        found = {name: values[name] for name in self.output_names}
        return found if len(found) > 1 else next(iter(found.values()))


def _types(found: Any) -> tuple[Any, ...]:
    """Return the type of a constant that is written as Python's numbers."""
    if isinstance(found, np.ndarray):
        return ()
    first = found[0] if isinstance(found, list | tuple) and found else found
    return (np.float32,) if isinstance(first, float) else (np.int64,)


def _free(plan: list[Line], kept: set[str]) -> None:
    """Note behind which step each value is read no more."""
    seen = set(kept)
    for line in reversed(plan):
        for name in [*line.reads, *line.makes]:
            if name not in seen:
                seen.add(name)
                line.frees.append(name)


def _path(node: Any) -> list[str]:
    """Return the modules that a node lies in, and its own name."""
    scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    try:
        names = [str(name) for name in ast.literal_eval(scopes)] if scopes else []
    except (ValueError, SyntaxError):
        names = []
    if len(names) > 1:
        parts = [*names[-2].split("."), node.name or names[-1]]
    else:
        parts = _parts(node)
    safe = [_UNSAFE.sub("_", part).strip("_") for part in parts]
    return [part for part in safe if part] or [node.op_type]


def _parts(node: Any) -> list[str]:
    """Cut ``/blocks/blocks.0/attn/MatMul`` where modules begin; a repeated prefix counts once."""
    parts = [part for part in (node.name or node.output[0]).split("/") if part]
    found: list[str] = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if following.startswith(f"{part}."):
            continue
        found += part.split(".")
    return found


def _place(root: torch.nn.Module, path: list[str], step: Step) -> None:
    """Put a step into the tree, under a name that is free."""
    module = root
    for name in path[:-1]:
        free = name
        while isinstance(found := getattr(module, free, None), Step) or (
            found is not None and not isinstance(found, torch.nn.Module)
        ):
            free += "_"
        if not isinstance(getattr(module, free, None), torch.nn.Module):
            module.add_module(free, torch.nn.Module())
        module = getattr(module, free)
    name, number = path[-1], 1
    while hasattr(module, name):
        number += 1
        name = f"{path[-1]}_{number}"
    module.add_module(name, step)
