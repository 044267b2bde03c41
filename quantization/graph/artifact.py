"""A quantized graph on disk: ``quantize.json`` and ``quantized.safetensors``.

The JSON holds the nodes and the provenance; every number that the arithmetic uses (codes, scales,
zero points) is a tensor in the safetensors file, so that nothing goes through decimal text.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError, reason
from vitq.numerics.files import write_atomically
from vitq.numerics.qparams import PerAxis, PerTensor, QuantParams
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.outputs import LOGITS

FORMAT = 3
ONE_OUTPUT_FORMAT = 2
"""The format before, of one output without a name; it is read, too."""
JSON_NAME = "quantize.json"
TENSORS_NAME = "quantized.safetensors"
SAMPLE_KEY = "sample.pixels"


@dataclass(frozen=True)
class QuantizedModel:
    """What `quantize` hands to `export` and to the reference.

    Attributes:
        graph: quantized.
        sample: (N, C, H, W) uint8, some of the calibration pictures, for parity and goldens.
        provenance: model, recipe, method, preprocessing, versions, command.
    """

    graph: Graph
    sample: UInt8Array
    provenance: dict[str, Any]


def save(folder: Path, model: QuantizedModel) -> None:
    """Write both files, tensors first: the JSON is the sign that the stage is complete."""
    graph = model.graph
    tensors = {key: np.ascontiguousarray(value) for key, value in graph.tensors.items()}
    tensors[SAMPLE_KEY] = model.sample
    for name, qparams in _all_qparams(graph).items():
        tensors[f"{name}:scale"] = qparams.scale
        tensors[f"{name}:zero_point"] = qparams.zero_point
    nodes = [_node_to_json(node) for node in graph]
    content = {
        "format": FORMAT,
        "provenance": model.provenance,
        "outputs": [[name, node] for name, node in graph.outputs.items()],
        "nodes": nodes,
        "qparams": {name: _bounds_to_json(q) for name, q in _all_qparams(graph).items()},
    }
    data = safetensors.numpy.save(tensors)
    content = json.loads(json.dumps(content))  # as `load` will see it
    content["sha256"] = _digest(content, data)
    write_atomically(folder / TENSORS_NAME, data)
    write_atomically(folder / JSON_NAME, json.dumps(content, indent=1) + "\n")


def _digest(content: dict[str, Any], data: bytes) -> str:
    """SHA-256 of both files: what was edited would fail anywhere, or silently mean another model.

    Args:
        content: of the JSON.
        data: of the tensors' file.
    """
    text = json.dumps({k: v for k, v in content.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode() + hashlib.sha256(data).digest()).hexdigest()


def load(folder: Path) -> QuantizedModel:
    """Read what `save` wrote.

    Raises:
        VitqError: if a file is missing, damaged, or of another format.
    """
    try:
        content = json.loads((folder / JSON_NAME).read_text())
        data = (folder / TENSORS_NAME).read_bytes()
        tensors = safetensors.numpy.load(data)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise VitqError(
            f"{folder} is no quantized model (run quantize first): {reason(error)}"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found not in (FORMAT, ONE_OUTPUT_FORMAT):
        raise VitqError(f"{folder} was written in format {found}: quantize again")
    if content.get("sha256") != _digest(content, data):
        raise VitqError(
            f"{folder} is damaged ({JSON_NAME} or {TENSORS_NAME} was changed): quantize again"
        )
    try:
        return _restore(content, tensors)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise VitqError(f"{folder} is damaged ({reason(error)}): quantize again") from error


def _restore(content: dict[str, Any], tensors: dict[str, Any]) -> QuantizedModel:
    qparams = {
        name: _qparams_from(name, limits, tensors) for name, limits in content["qparams"].items()
    }
    nodes = {item["name"]: node_from_json(item, qparams) for item in content["nodes"]}
    keys = {key for node in nodes.values() for key in node.params.values()}
    graph = Graph(
        nodes,
        _outputs(content),
        {key: tensors[key] for key in keys},
        {key: value for key, value in qparams.items() if key in keys},
    )
    return QuantizedModel(graph, tensors[SAMPLE_KEY], content["provenance"])


def _outputs(content: dict[str, Any]) -> dict[str, str]:
    """Name of each result -> its node."""
    if content["format"] == ONE_OUTPUT_FORMAT:
        return {LOGITS: content["output"]}
    outputs = {str(name): str(node) for name, node in content["outputs"]}
    if not outputs:
        raise ValueError("no output")
    return outputs


def _all_qparams(graph: Graph) -> dict[str, QuantParams]:
    outs = {f"out.{node.name}": node.out for node in graph if node.out is not None}
    return {**graph.qparams, **outs}


def _bounds_to_json(qparams: QuantParams) -> dict[str, Any]:
    axis = qparams.granularity.axis if isinstance(qparams.granularity, PerAxis) else None
    return {"qmin": qparams.qmin, "qmax": qparams.qmax, "axis": axis}


def _qparams_from(name: str, limits: dict[str, Any], tensors: dict[str, Any]) -> QuantParams:
    axis = limits["axis"]
    return QuantParams(
        tensors[f"{name}:scale"],
        tensors[f"{name}:zero_point"],
        limits["qmin"],
        limits["qmax"],
        PerTensor() if axis is None else PerAxis(axis),
    )


def _node_to_json(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op.value,
        "inputs": list(node.inputs),
        "shape": list(node.shape),
        "batch_axis": node.batch_axis,
        "params": node.params,
        "attrs": node.attrs,
        "module": node.module,
    }


def node_from_json(item: dict[str, Any], qparams: dict[str, QuantParams]) -> Node:
    """One node of ``quantize.json``; `qparams` by name, see `save`."""
    return Node(
        item["name"],
        OpKind(item["op"]),
        tuple(item["inputs"]),
        tuple(item["shape"]),
        item["batch_axis"],
        item["params"],
        item["attrs"],
        qparams.get(f"out.{item['name']}"),
        item.get("module", ""),
    )
