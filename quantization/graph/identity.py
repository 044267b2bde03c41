"""Hashes by which a float model is known again."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.outputs import LOGITS

if TYPE_CHECKING:
    import torch


def graph_hash(graph: Graph) -> str:
    """SHA-256 of a float graph: operators, attributes, weights and results."""
    digest = hashlib.sha256()
    for node in graph:
        params = sorted(node.params.items())
        digest.update(repr((node.name, node.op, node.inputs, node.shape, params)).encode())
        digest.update(repr(sorted(node.attrs.items())).encode())
    if list(graph.outputs) != [LOGITS]:
        digest.update(repr(list(graph.outputs.items())).encode())
    for key, value in sorted(graph.tensors.items()):
        digest.update(f"{key} {value.shape} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def module_hash(module: "torch.nn.Module") -> str:
    """SHA-256 of a module's structure (names and classes of all modules) and of its state dict."""
    digest = hashlib.sha256()
    for name, inner in module.named_modules():
        digest.update(f"{name} {type(inner).__qualname__} {inner.extra_repr()}\n".encode())
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
