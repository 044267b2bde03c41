"""Read a PyTorch model into a `Graph` through ``torch.export``.

The model is recognised by what it computes, never by module names: any model that exports to the
operators listed in `quantization.graph.graph` can be quantized. Everything else is refused at once,
with the full list.

What no picture decides is computed (`quantization.graph.fixed`) and becomes a constant where it is
read. Each other operator has a function in `quantization.graph.spellings` that says which nodes it
is; torch's many spellings of one thing become the same nodes.
"""

import logging
from typing import Any

import torch

from vitq.quantization.graph import spellings
from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.exporting import export_program, shape_at_one
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.origins import module_of, with_origins
from vitq.quantization.graph.refusals import Refusals
from vitq.quantization.graph.results import result_nodes, with_outputs

logger = logging.getLogger(__name__)


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
    return with_origins(with_outputs(Tracer(program).run(), program, model), program)


class Tracer(Walk):
    """One walk over an exported program."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program
        self.refusals = Refusals()
        self._results: dict[str, str] = {}

    def run(self) -> Graph:
        """Convert all nodes, or name every operator that cannot be."""
        signature = self.program.graph_signature
        stored = {**self.program.state_dict, **self.program.constants}
        named = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in named:
                self.fixed.store(node, stored[named[node.name]])
                self._keys[node] = named[node.name]
            elif node.op == "placeholder":
                self._input(node)
        self._walk(self.program.graph_module)
        self.refusals.check()
        graph = Graph(self.build.nodes, self._results, self.build.tensors)
        graph.remove_dead()
        return graph

    def _input(self, node: FxNode) -> None:
        if not isinstance(node.meta.get("val"), torch.Tensor):
            return self.fixed.bind(node, node.meta.get("val"))
        shape, batch_axis = shape_at_one(node.meta["val"])
        x = self.build.node(OpKind.INPUT, (), shape, batch_axis)
        self._operands[node] = self.build.rename(x, node.name)

    def _walk(self, module: torch.fx.GraphModule) -> Any:
        """Convert a graph whose placeholders are known; return what it returns."""
        live = live_nodes(module.graph)
        for node in module.graph.nodes:
            if node.op == "get_attr":
                self.fixed.bind(node, getattr(module, node.target))
            elif node.op == "output" and module is self.program.graph_module:
                self._outputs(node)
            elif node.op == "output":
                return node.args[0]
            elif node.op != "placeholder" and node in live:
                self._convert(node)
        return None

    def _outputs(self, node: FxNode) -> None:
        try:
            self._results = result_nodes(node.args[0], lambda result: self.x(result).name)
        except Refusal as refusal:
            self.refusals.add(str(refusal), "")

    def _convert(self, node: FxNode) -> None:
        if self.fixed.visit(node):
            return
        inner = next((i for i, arg in enumerate(node.args) if self._is_graph(arg)), None)
        if inner is not None:
            self._inline(node, self.fixed.value(node.args[inner]), node.args[inner + 1 :])
            return
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor | list | tuple) and node.users:
            self.refusals.add(f"{name_of(node)} of values", module_of(node))
        elif isinstance(value, torch.Tensor | list | tuple):
            self._spell(node)

    def _is_graph(self, arg: Any) -> bool:
        is_node = isinstance(arg, torch.fx.Node) and arg.op == "get_attr"
        return is_node and isinstance(self.fixed.value(arg), torch.fx.GraphModule)

    def _inline(self, node: FxNode, module: torch.fx.GraphModule, args: Any) -> None:
        """Convert what runs under ``torch.no_grad`` or without autocast like anything else."""
        places = [inner for inner in module.graph.nodes if inner.op == "placeholder"]
        for place, arg in zip(places, args, strict=True):
            if self.fixed.is_fixed(arg):
                self.fixed.bind(place, self.fixed.value(arg))
            else:
                self._operands[place] = self.x(arg)
        self.pending[node] = ("graph", self._walk(module))

    def _spell(self, node: FxNode) -> None:
        """Convert an operator; one that is refused keeps its place for what follows."""
        self.build.base = node.name
        before = len(self.build.nodes)
        try:
            found = spellings.spell(self, node)
        except Refusal as refusal:
            return self._give_up(node, str(refusal))
        except (IndexError, TypeError, AttributeError, ValueError, KeyError) as error:
            logger.debug("%s: %r", node.format_node(), error)
            return self._give_up(node, f"{name_of(node)} in this form")
        if found is None:
            return None
        wanted = shape_at_one(node.meta["val"])
        if (found.shape, found.batch_axis) != wanted:
            logger.debug("%s: %s is not %s", node.format_node(), found, wanted)
            return self._give_up(node, f"{name_of(node)} in this form")
        is_last = len(self.build.nodes) > before and next(reversed(self.build.nodes)) == found.name
        self._operands[node] = self.build.rename(found, node.name) if is_last else found
        return None

    def _give_up(self, node: FxNode, what: str) -> None:
        self.refusals.add(what, module_of(node))
        value = node.meta["val"]
        parts = value if isinstance(value, list | tuple) else [value]
        places = [Operand(node.name, *shape_at_one(part)) for part in parts]
        if value is parts:
            self.pending[node] = ("parts", places)
        else:
            self._operands[node] = places[0]


def live_nodes(graph: torch.fx.Graph) -> set[FxNode]:
    """Return the nodes that a result depends on, and those that write into one.

    ``Graph.eliminate_dead_code`` would say so, too, but fails on graphs with inner graphs.
    """
    live: set[FxNode] = set()
    for node in reversed(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        writes = schema is not None and schema.is_mutable
        if node.op == "output" or writes or any(user in live for user in node.users):
            live.add(node)
    return live
