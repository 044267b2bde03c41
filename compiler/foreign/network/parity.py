"""The module of a file against the file itself in onnxruntime: no mistake of ours stays silent."""

from pathlib import Path

import numpy as np
import torch

from vitq.compiler.foreign.network.network import Network
from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError, reason

TOLERANCE = 1e-3
"""Of the largest value: both compute in float32, onnxruntime with its own approximations."""
MISTAKE = "a mistake of reading it: report it, or bring the model as a PyTorch module"


def check_network(network: Network, path: Path, pictures: torch.Tensor) -> None:
    """Refuse a module that does not compute what its file does.

    Args:
        network: of `read_network`.
        path: the file.
        pictures: (N, C, H, W) float32, normalized; all at once for the module, one at a time for
            a file that is made for one.

    Raises:
        VitqError: the largest difference is over `TOLERANCE` of the largest value, or onnxruntime
            does not run the file.
    """
    from vitq.quantization.model.results import taken_tensors

    with torch.inference_mode():
        results = [value.numpy() for value in taken_tensors(network(pictures)).values()]
    wanted = _by_onnxruntime(network, path, pictures.numpy())
    for name, found, ours in zip(network.output_names, wanted, results, strict=True):
        size = float(np.abs(found).max(initial=0))
        alike = found.shape == ours.shape
        off = float(np.abs(found - ours).max(initial=0)) if alike else np.inf
        if not off <= TOLERANCE * size:
            how = (
                f"differs by {off:.3g}" if alike else f"is {ours.shape} and not {found.shape}, off"
            )
            made_for = (
                f"the file is made for a batch of {network.batch}: export it with a dynamic one"
            )
            remedy = made_for if network.batch else MISTAKE
            raise VitqError(
                f"{path}: its result {name} {how} from what onnxruntime computes (values up to "
                f"{size:.3g}): {remedy}"
            )


def _by_onnxruntime(network: Network, path: Path, pictures: FloatArray) -> list[FloatArray]:
    """Return results by the network's names, which may be inner ones, as the file is written."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    known = {value.name for value in model.graph.output}
    for name in network.output_names:
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        entry = session.get_inputs()[0]
        last = entry.shape[3] == network.in_chans and entry.shape[1] != network.in_chans
        x = pictures.transpose(0, 2, 3, 1) if last else pictures
        x = x.astype(np.float16 if "float16" in entry.type else np.float32)
        step = network.batch or len(x)
        feeds = [np.resize(x[i : i + step], (step, *x.shape[1:])) for i in range(0, len(x), step)]
        parts = [session.run(list(network.output_names), {entry.name: feed}) for feed in feeds]
    except Exception as error:
        raise VitqError(f"{path}: onnxruntime does not run it: {reason(error)}") from error
    return [
        np.concatenate([part[i] for part in parts])[: len(x)].astype(np.float32)
        for i in range(len(network.output_names))
    ]
