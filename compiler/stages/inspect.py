"""Stage ``inspect``: what is in an artifact."""

from collections import Counter
from pathlib import Path
from typing import Any

from vitq.compiler.support.artifacts import (
    EXPORT_NAME,
    METADATA_NAME,
    ONNX_NAME,
    QUANTIZE_NAME,
    Artifact,
    open_artifact,
    read_json,
)


def inspect(path: Path) -> dict[str, Any]:
    """Summarize an artifact, or one of its targets.

    Args:
        path: the artifact's folder, or a target's folder inside it.

    Returns:
        JSON-able: ``artifact``, ``provenance``, ``quantizers``, ``layers`` (widths of weights,
        codes of attention weights), ``export``, ``targets`` (for each: I/O, integer operators with
        counts, float islands, accumulator bounds, sizes, versions).

    Raises:
        VitqError: if there is no artifact.
    """
    artifact = open_artifact(path)
    only = path if (path / METADATA_NAME).is_file() else None
    folders = (
        [only] if only else sorted(p.parent for p in artifact.folder.glob(f"*/{METADATA_NAME}"))
    )
    content: dict[str, Any] = {"artifact": str(artifact.folder)}
    quantized = artifact.folder / QUANTIZE_NAME
    if quantized.is_file():
        stored = read_json(quantized)
        content["provenance"] = stored["provenance"]
        content["quantizers"] = _quantizers(artifact, stored)
        content["layers"] = _layers(stored)
    if (artifact.folder / EXPORT_NAME).is_file():
        content["export"] = read_json(artifact.folder / EXPORT_NAME)
    files = [path for path in (artifact.onnx, quantized) if path.is_file()]
    content["size_bytes"] = {file.name: file.stat().st_size for file in files}
    content["targets"] = {folder.name: _target(folder) for folder in folders}
    return content


def _quantizers(artifact: Artifact, stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Scale, zero point and range of each quantized result, in execution order."""
    import safetensors

    from vitq.quantization.graph.artifact import node_from_json
    from vitq.quantization.graph.origins import label_of

    nodes = {item["name"]: node_from_json(item, {}) for item in stored["nodes"]}
    rows = []
    path = artifact.folder / "quantized.safetensors"
    with safetensors.safe_open(path, framework="numpy") as tensors:
        for name, limits in stored["qparams"].items():
            if not name.startswith("out."):
                continue
            node = name.removeprefix("out.")
            rows.append({
                "name": node,
                "module": label_of(nodes[node]),
                "op": nodes[node].op.value,
                "scale": float(tensors.get_tensor(f"{name}:scale")),
                "zero_point": int(tensors.get_tensor(f"{name}:zero_point")),
                "qmin": limits["qmin"],
                "qmax": limits["qmax"],
            })
    return rows


def _layers(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the widths and codes of each layer are, in execution order."""
    from vitq.quantization.graph.artifact import node_from_json
    from vitq.quantization.graph.graph import OpKind
    from vitq.quantization.graph.origins import label_of
    from vitq.quantization.plan.attention_codes import codes_name

    rows = []
    for item in stored["nodes"]:
        node = node_from_json(item, {})
        if "weight" in node.params:
            limits = stored["qparams"][node.params["weight"]]
            what = f"{limits['qmax'].bit_length() + 1}-bit weights"
        elif node.op is OpKind.EXP:
            what = codes_name(node)
        elif "twin_shift" in node.attrs:
            what = f"coarse steps of {2 ** node.attrs['twin_shift']} fine ones"
        else:
            continue
        facts = {"name": node.name, "module": label_of(node), "op": node.op.value, "what": what}
        rows.append(facts)
    return rows


def _target(folder: Path) -> dict[str, Any]:
    metadata = read_json(folder / METADATA_NAME)
    bounds = metadata.pop("accumulators")
    metadata["accumulators"] = {
        "proven": len(bounds),
        "tightest": max(bounds, key=_fill, default=None),
    }
    metadata.pop("fingerprint")
    metadata["schedule_sources"] = dict(
        sorted(Counter(kernel["source"] for kernel in metadata.get("schedules", ())).items())
    )
    return metadata


def _fill(bound: dict[str, Any]) -> float:
    """How much of its limit an accumulator can reach."""
    return float(max(-bound["low"], bound["high"]) / bound["limit"])


__all__ = ["ONNX_NAME", "inspect"]
