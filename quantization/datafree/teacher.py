"""The float model as a source of losses."""

import copy
from typing import Any

import torch

from vitq.quantization.datafree.losses import similarity_entropy
from vitq.quantization.datafree.patches import PatchProbe, find_patches
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.run.fake_quantize import GraphModule


class Teacher:
    """The float model, with the entropy of its patch similarities.

    Args:
        graph: float, as traced; not edited.
        device: where it runs.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        self.probe: PatchProbe = find_patches(graph)
        self._wanted = frozenset(self.probe.blocks)
        self._outputs: list[torch.Tensor] = []
        self._module = GraphModule(copy.copy(graph), observer=self._keep).to(device)

    def _keep(self, node: Node, value: torch.Tensor) -> None:
        if node.name in self._wanted:
            self._outputs.append(value)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and summed entropy of all blocks.

        Args:
            x: (B, C, H, W) normalized.

        Returns:
            (B, classes) and (B,).
        """
        self._outputs.clear()
        logits = self._module.differentiable(x)
        entropies = [similarity_entropy(self._patches(o), x.shape[0]) for o in self._outputs]
        self._outputs.clear()
        return logits, torch.stack(entropies).sum(dim=0)

    def _patches(self, tokens: torch.Tensor) -> Any:
        """Leave out the tokens that are no patches; heads, if any, are put side by side."""
        if tokens.ndim == 4:
            tokens = tokens.transpose(1, 2).flatten(2)
        if self.probe.count is None:
            return tokens
        return tokens.narrow(-2, self.probe.start, self.probe.count)
