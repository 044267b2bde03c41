"""Read a PyTorch model into a `Graph` through ``torch.export``.

The model is recognised by what it computes, never by module names: any model that exports to the
operators listed in `quantization.graph.graph` can be quantized. Everything else is refused at once,
with the full list.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.attention import OPTIONS, Operand, attention_nodes
from vitq.quantization.graph.exporting import export_program, float32, shape_at_one
from vitq.quantization.graph.fixed import FixedValues
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.origins import with_origins
from vitq.quantization.graph.results import result_nodes, with_outputs

logger = logging.getLogger(__name__)

# A torch.fx.Node whose arguments are typed as a union of everything: each handler knows its own.
FxNode = Any

_IDENTITY = {"dropout", "contiguous", "clone", "alias", "detach", "detach_", "_to_copy", "to"}
_RESHAPE = {"reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"}


def trace(model: torch.nn.Module, input_shape: tuple[int, int, int]) -> Graph:
    """Trace a model in eval mode.

    Args:
        model: takes float32 pictures (N, C, H, W), returns logits (N, classes), or any tensors: see
            `quantization.graph.results`.
        input_shape: (C, H, W).

    Returns:
        The float graph; its input is the normalized picture, as the model expects it.

    Raises:
        VitqError: if the model does not export, or uses unsupported operators (all are listed).
    """
    program = export_program(model, input_shape)
    return with_origins(with_outputs(_Tracer(program).run(), program, model), program)


class _Tracer:
    """One walk over an exported program."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.nodes: dict[str, Node] = {}
        self.alias: dict[str, str] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.fixed = FixedValues(self.constants)
        self.tensors: dict[str, Any] = {}
        self.unsupported: dict[str, int] = {}

    def run(self) -> Graph:
        """Convert all nodes, or name every operator that cannot be."""
        signature = self.program.graph_signature
        stored = {**self.program.state_dict, **self.program.constants}
        named = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        outputs: dict[str, str] = {}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                if node.name in named:
                    self.constants[node.name] = stored[named[node.name]]
                    self.alias[node.name] = named[node.name]
                else:
                    self._emit(node, OpKind.INPUT, ())
            elif node.op != "output":
                self._convert(node)
            else:
                outputs = result_nodes(node.args[0], self._name)
        if self.unsupported:
            listed = ", ".join(f"{op} (x{n})" for op, n in sorted(self.unsupported.items()))
            raise VitqError(f"the model uses operators that are not supported: {listed}")
        graph = Graph(self.nodes, outputs, self.tensors)
        graph.remove_dead()
        return graph

    def _convert(self, node: FxNode) -> None:
        op = str(getattr(node.target, "__name__", node.target)).split(".")[0]
        handler: Callable[[FxNode], None] | None = getattr(self, f"_op_{op}", None)
        is_handled = handler is not None or op in _IDENTITY | _RESHAPE
        if self.fixed.visit(node, is_handled) or not isinstance(
            node.meta.get("val"), torch.Tensor | list | tuple
        ):
            return
        if op in _IDENTITY:
            self._identity(node, op)
        elif op in _RESHAPE:
            self._emit(node, OpKind.RESHAPE, (node.args[0],))
        elif handler is not None:
            self._handle(node, op, handler)
        else:
            self._refuse(op)

    def _handle(self, node: FxNode, op: str, handler: Callable[[FxNode], None]) -> None:
        """Convert a node; one that is refused but fixed is computed instead."""
        before = dict(self.unsupported)
        try:
            handler(node)
        except (IndexError, TypeError, AttributeError, ValueError) as error:
            logger.debug("%s: %r", node.format_node(), error)
            self._refuse(f"{op} in this form")
        if self.unsupported != before and self.fixed.set_aside(node):
            self.unsupported = before

    def _identity(self, node: FxNode, op: str) -> None:
        if not node.meta["val"].dtype.is_floating_point:
            self._refuse(f"{op} to {node.meta['val'].dtype}")
        elif op == "dropout" and node.args[2]:
            self._refuse("dropout that is on in eval mode")
        self.alias[node.name] = self._name(node.args[0])

    def _refuse(self, what: str) -> None:
        self.unsupported[what] = self.unsupported.get(what, 0) + 1

    def _name(self, arg: Any) -> str:
        """Graph name of an argument; a stored tensor becomes a constant node on first use."""
        name = arg.name
        if self.fixed.is_aside(arg):
            self._store(arg)
        if name in self.constants:
            if name not in self.nodes:
                shape = tuple(self.constants[name].shape)
                params = {"value": self._store(arg)}
                self.nodes[name] = Node(name, OpKind.CONSTANT, (), shape, None, params)
            return str(name)
        return self.alias.get(name, name)

    def _store(self, arg: Any) -> str:
        """Key of a stored tensor, copied to float32 NumPy on first use."""
        if arg.name not in self.constants:
            computed = self.fixed.weight(arg)
            if computed is None:
                self._refuse("a weight computed at run time")
                return ""
            self.constants[arg.name], self.alias[arg.name] = computed, arg.name
        key = self.alias[arg.name]
        value = self.constants[arg.name].detach().to(torch.float32).numpy()
        self.tensors.setdefault(key, np.array(value))
        return key

    def _emit(self, node: FxNode, op: OpKind, inputs: tuple[Any, ...], **fields: Any) -> None:
        val = fields.pop("val", None)
        shape, batch_axis = shape_at_one(node.meta["val"] if val is None else val)
        names = tuple(self._name(arg) for arg in inputs)
        self.nodes[node.name] = Node(node.name, op, names, shape, batch_axis, **fields)

    def _affine(self, node: FxNode, roles: tuple[str, str], start: int) -> dict[str, str]:
        """Parameters (weight, bias) of a layer, with zeros for a bias that is absent."""
        weight = self._store(node.args[start])
        bias = node.args[start + 1] if len(node.args) > start + 1 else None
        if bias is not None:
            return {roles[0]: weight, roles[1]: self._store(bias)}
        key = f"{weight}.zero_bias"
        channels = self.tensors[weight].shape[0] if weight else 0
        self.tensors[key] = np.zeros(channels, np.float32)
        return {roles[0]: weight, roles[1]: key}

    def _op_conv2d(self, node: FxNode) -> None:
        params = self._affine(node, ("weight", "bias"), 1)
        if not params["weight"]:
            return
        kernel = list(self.tensors[params["weight"]].shape[2:])
        size = tuple(node.args[0].meta["val"].shape[2:])
        defaults = (None, [1, 1], [0, 0], [1, 1], 1)
        stride, padding, dilation, groups = (*node.args[2:], *defaults[len(node.args) - 2 :])[1:]
        plain = padding in ([0, 0], "valid") and dilation == [1, 1] and groups == 1
        square = kernel[0] == kernel[1] and not any(side % kernel[0] for side in size)
        if list(stride) != kernel or not plain or not square:
            what = f"kernel {kernel}, stride {stride}, padding {padding}"
            self._refuse(f"conv2d of {size} with {what}")
        self._emit(node, OpKind.CONV2D, (node.args[0],), params=params)

    def _op_linear(self, node: FxNode) -> None:
        params = self._affine(node, ("weight", "bias"), 1)
        self._emit(node, OpKind.LINEAR, (node.args[0],), params=params)

    def _op_layer_norm(self, node: FxNode) -> None:
        if len(node.args[1]) != 1 or len(node.args) < 4 or node.args[3] is None:
            self._refuse("layer_norm over several axes or without weight and bias")
            return
        params = {"gamma": self._store(node.args[2]), "beta": self._store(node.args[3])}
        eps = float(node.args[4]) if len(node.args) > 4 else 1e-5
        self._emit(node, OpKind.LAYER_NORM, (node.args[0],), params=params, attrs={"eps": eps})

    def _op_gelu(self, node: FxNode) -> None:
        attrs = {"approximate": node.kwargs.get("approximate", "none")}
        self._emit(node, OpKind.GELU, (node.args[0],), attrs=attrs)

    def _op_softmax(self, node: FxNode) -> None:
        rank = len(node.meta["val"].shape)
        if node.args[1] % rank != rank - 1:
            self._refuse(f"softmax over axis {node.args[1]} of {rank}")
        self._emit(node, OpKind.SOFTMAX, (node.args[0],))

    def _op_matmul(self, node: FxNode) -> None:
        self._emit(node, OpKind.MATMUL, node.args[:2])

    _op_bmm = _op_matmul

    def _op_scaled_dot_product_attention(self, node: FxNode) -> None:
        """Spell attention out: permute, matmul, scale, softmax, matmul."""
        options = dict(zip(OPTIONS, node.args[3:], strict=False)) | node.kwargs
        mask = options.get("attn_mask")
        if mask is not None and not self.fixed.hides_nothing(mask):
            self._refuse("attention with a mask that hides something")
        if options.get("is_causal") or options.get("dropout_p"):
            self._refuse("attention that is causal or with dropout")
        query, key, value = (
            Operand(self._name(arg), *shape_at_one(arg.meta["val"])) for arg in node.args[:3]
        )
        factor = float32(options.get("scale") or float(query.shape[-1]) ** -0.5)
        for part in attention_nodes(node.name, query, key, value, factor):
            self.nodes[part.name] = part

    def _op_add(self, node: FxNode) -> None:
        if not all(isinstance(arg, torch.fx.Node) for arg in node.args[:2]) or node.kwargs:
            self._refuse("add with a number")
            return
        for x, other in (node.args[:2], node.args[1::-1]):
            if self._adds_nothing(node, x, other):
                return self._same(node, x, "")
        self._emit(node, OpKind.ADD, self._constant_last(node.args))

    def _adds_nothing(self, node: FxNode, x: FxNode, other: FxNode) -> bool:
        """Whether a sum is only its first term, as of scores and a mask that hides nothing."""
        is_zero = self.fixed.is_aside(other) and self.fixed.is_all(other, 0)
        return is_zero and node.meta["val"].shape == x.meta["val"].shape

    def _same(self, node: FxNode, x: Any, otherwise: str) -> None:
        """Take a node for another one, which must be one, or refuse."""
        if not isinstance(x, torch.fx.Node):
            return self._refuse(otherwise)
        self.alias[node.name] = self._name(x)

    def _op_masked_fill(self, node: FxNode) -> None:
        hides = not self.fixed.is_all(node.args[1], 0)
        self._same(node, None if hides else node.args[0], "masked_fill that hides something")

    def _op_where(self, node: FxNode) -> None:
        chosen = [node.args[i] for i in (1, 2) if self.fixed.is_all(node.args[0], 2 - i)]
        self._same(node, next(iter(chosen), None), "where")

    def _constant_last(self, args: Any) -> tuple[Any, Any]:
        first, second = args[:2]
        return (second, first) if first.name in self.constants else (first, second)

    def _op_mul(self, node: FxNode) -> None:
        first, second = node.args[:2]
        if isinstance(second, int | float):
            self._scale(node, float(second))
        elif second.name in self.constants or first.name in self.constants:
            x, factor = self._constant_last((first, second))
            if len(shape_at_one(factor.meta["val"])[0]) != 1:
                self._refuse("mul by a constant that is no vector")
            params = {"value": self._store(factor)}
            self._emit(node, OpKind.CHANNEL_SCALE, (x,), params=params)
        else:
            self._refuse("mul of two activations")

    def _op_div(self, node: FxNode) -> None:
        if isinstance(node.args[1], int | float):
            self._scale(node, 1.0 / float(node.args[1]))
        else:
            self._refuse("div by a tensor")

    def _scale(self, node: FxNode, factor: float) -> None:
        if factor <= 0:
            self._refuse("multiplication by a number <= 0")
        self._emit(node, OpKind.SCALE, (node.args[0],), attrs={"factor": float32(factor)})

    def _op_permute(self, node: FxNode) -> None:
        rank = len(node.args[1])
        axes = [axis % rank for axis in node.args[1]]
        self._emit(node, OpKind.PERMUTE, (node.args[0],), attrs={"axes": axes})

    def _op_transpose(self, node: FxNode) -> None:
        rank = len(node.meta["val"].shape)
        axes = list(range(rank))
        first, second = node.args[1] % rank, node.args[2] % rank
        axes[first], axes[second] = second, first
        self._emit(node, OpKind.PERMUTE, (node.args[0],), attrs={"axes": axes})

    def _op_select(self, node: FxNode) -> None:
        self._select(node, node.args[0], node.args[1], node.args[2])

    def _select(self, node: FxNode, x: Any, axis: int, index: int) -> None:
        shape, _ = shape_at_one(x.meta["val"])
        axis %= len(shape)
        attrs = {"axis": axis, "index": index % shape[axis]}
        self._emit(node, OpKind.SELECT, (x,), attrs=attrs)

    def _op_slice(self, node: FxNode) -> None:
        args = [*node.args, *(0, None, None, 1)[len(node.args) - 1 :]]
        x, axis, start, stop, step = args[:5]
        shape, _ = shape_at_one(x.meta["val"])
        axis %= len(shape)
        if step != 1:
            self._refuse("slice with a step")
        begin, end, _ = slice(start, stop).indices(shape[axis])
        if (begin, end) == (0, shape[axis]):
            self.alias[node.name] = self._name(x)
            return
        attrs = {"axis": axis, "start": begin, "stop": end}
        self._emit(node, OpKind.SLICE, (x,), attrs=attrs)

    def _op_getitem(self, node: FxNode) -> None:
        source, index = node.args
        op = str(source.target).split(".")[1]
        x = source.args[0]
        axis = source.args[{"unbind": 1}.get(op, 2)] if len(source.args) > 1 else 0
        if op == "unbind":
            self._select(node, x, axis, index)
            return
        sizes = [shape_at_one(part)[0][axis] for part in source.meta["val"]]
        start = sum(sizes[:index])
        axis %= len(shape_at_one(x.meta["val"])[0])
        attrs = {"axis": axis, "start": start, "stop": start + sizes[index]}
        self._emit(node, OpKind.SLICE, (x,), attrs=attrs)

    def _op_unbind(self, node: FxNode) -> None:
        """Nothing to do: its getitem nodes become selects (chunk and split: slices)."""

    _op_chunk = _op_split = _op_split_with_sizes = _op_unbind

    def _op_cat(self, node: FxNode) -> None:
        axis = (node.args[1] if len(node.args) > 1 else 0) % len(node.meta["val"].shape)
        self._emit(node, OpKind.CONCAT, tuple(node.args[0]), attrs={"axis": axis})

    def _op_expand(self, node: FxNode) -> None:
        self._emit(node, OpKind.EXPAND, (node.args[0],))

    def _op_mean(self, node: FxNode) -> None:
        axes = node.args[1]
        rank = len(shape_at_one(node.args[0].meta["val"])[0])
        if len(axes) != 1 or (len(node.args) > 2 and node.args[2]):
            self._refuse("mean over several axes or with keepdim")
        self._emit(node, OpKind.MEAN, (node.args[0],), attrs={"axis": axes[0] % rank})
