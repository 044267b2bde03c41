"""Stage 2: the quantized graph becomes ``model.onnx``, and its parity with PyTorch is measured."""

import json
import logging
import time
from typing import Any

from vitq.compiler.support.artifacts import (
    Artifact,
    file_hash,
    fingerprint,
    is_current,
    read_json,
    source_hash,
    versions,
    whole_or_nothing,
    write_json,
)
from vitq.compiler.support.locks import alone
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_file

logger = logging.getLogger(__name__)

PACKAGES = ("numerics", "quantization", "export")
NOISE_FACTOR = 3.0
"""Parity may be as many times further from 1 than float32 is from float64: of a network that turns
roundings into other codes, layer by layer, no two runtimes have the same logits."""


@alone(lambda artifact: artifact.folder)
def export(artifact: Artifact) -> dict[str, Any]:
    """Run the stage, unless its inputs did not change.

    Args:
        artifact: after `compiler.stages.quantize.quantize`.

    Returns:
        What ``export.json`` holds: parity, hash of the file, versions.

    Raises:
        VitqError: if the artifact is not quantized, or ONNX and PyTorch disagree.
    """
    from vitq.quantization.graph import artifact as storage

    json_path, tensors = (
        artifact.folder / name for name in (storage.JSON_NAME, storage.TENSORS_NAME)
    )
    if not json_path.is_file():
        raise VitqError(f"{artifact.folder} is not quantized: run quantize first")
    packages = versions(("onnx", "onnxruntime"))
    wanted = fingerprint({
        "quantized": [file_hash(json_path), file_hash(tensors)],
        "source": source_hash(PACKAGES),
        "versions": packages,
    })
    if is_current(artifact.export_json, wanted, artifact.onnx):
        logger.info("export: unchanged, %s is up to date", artifact.onnx)
        return read_json(artifact.export_json)
    started = time.perf_counter()
    require_file(artifact.onnx)
    with whole_or_nothing(artifact.export_json, artifact.onnx):
        content = {"fingerprint": wanted, "parity": _export(artifact), "versions": packages}
        content["sha256"] = file_hash(artifact.onnx)
        content["quantized"] = file_hash(tensors)
        write_json(artifact.export_json, content)
    logger.info("export: %s (%.1f s)", artifact.onnx, time.perf_counter() - started)
    return content


def _export(artifact: Artifact) -> dict[str, Any]:
    """Write the file and compare it with the fake-quantized model on the sample pictures."""
    import torch

    from vitq.export.parity import MIN_COSINE, compare, run_onnx
    from vitq.export.qdq import save_onnx, to_onnx
    from vitq.quantization.graph import artifact as storage
    from vitq.quantization.run.fake_quantize import GraphModule

    model = storage.load(artifact.folder)
    facts = model.provenance
    metadata = {
        "model": facts["model"],
        "recipe": facts["recipe"]["name"],
        "method": facts["method"],
        "nonlinear": facts["nonlinear"],
        "mean": " ".join(map(str, facts["mean"])),
        "std": " ".join(map(str, facts["std"])),
        "preprocessing": json.dumps(facts["preprocessing"]),
    }
    save_onnx(to_onnx(model.graph, metadata), artifact.onnx)
    pixels = torch.from_numpy(model.sample)
    simulated = GraphModule(model.graph, simulate=True)(pixels).numpy()
    parity = compare(simulated, run_onnx(artifact.onnx, model.sample), model.graph.layout)
    logger.info(
        "export: parity with PyTorch on %d pictures: cosine %.5f, argmax agreement %.1f %%",
        parity.images,
        parity.mean_cosine,
        100 * parity.argmax_agreement,
    )
    if parity.mean_cosine >= MIN_COSINE:
        return parity.to_json()
    exact = GraphModule(model.graph, simulate=True, dtype=torch.float64)(pixels).numpy()
    own = compare(exact, simulated, model.graph.layout).mean_cosine
    logger.warning(
        "export: rounding alone changes this network's logits: PyTorch in float32 and float64 have "
        "a cosine of %.5f (too few bits for this method?)",
        own,
    )
    if not parity.mean_cosine >= 1 - NOISE_FACTOR * (1 - own):
        raise VitqError(
            f"{artifact.onnx} does not compute what PyTorch does: mean cosine "
            f"{parity.mean_cosine:.4f} of the logits (at least {MIN_COSINE}); please report this"
        )
    return parity.to_json() | {"float64_cosine": own}
