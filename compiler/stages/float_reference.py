"""The float model behind an artifact, as a function of pixels: what others are compared with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.stages.float_model import load_float_model
from vitq.compiler.stages.identity import IN_MEMORY, STATE, changed_files, describe_changed
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.user_code import prints_aside
from vitq.quantization.model.given import GivenModel
from vitq.quantization.model.names import freeze
from vitq.quantization.pictures.preprocessing import Preprocessing
from vitq.quantization.plan.output import Output

if TYPE_CHECKING:
    from vitq.compiler.codegen.compiled import Compiled


def float_is_known(compiled: "Compiled", module: GivenModel | None) -> bool:
    """Whether there is a float model to compare with: not behind a foreign file."""
    if compiled.is_foreign:
        return False
    facts = read_json(open_artifact(compiled.folder).folder / QUANTIZE_NAME)["provenance"]
    return module is not None or IN_MEMORY not in facts


def float_backend(
    compiled: "Compiled", module: GivenModel | None
) -> Callable[[UInt8Array], FloatArray]:
    """Return the original model with its normalization, as a function of pixels."""
    from vitq.quantization.graph import artifact as storage
    from vitq.quantization.model.results import with_features

    folder = open_artifact(compiled.folder).folder
    if compiled.is_foreign:
        raise VitqError(
            f"{folder}: the float model behind a foreign file is unknown: leave float out of the "
            "backends"
        )
    facts = storage.load(folder).provenance
    output = Output(facts.get("output", Output.CODES))
    if module is None:
        return float_runner(float_model(folder)[0], facts["mean"], facts["std"], output)
    if facts.get(IN_MEMORY) != module.digest:
        raise VitqError(f"{folder} was not quantized from this model: its weights are others")
    chosen = with_features(module.module, facts.get("output_features", ()))
    return float_runner(chosen, facts["mean"], facts["std"], output)


def float_runner(
    module: Any, mean: Sequence[float], std: Sequence[float], output: Output = Output.CODES
) -> Callable[[UInt8Array], FloatArray]:
    """Wrap a ``torch.nn.Module`` with its normalization and output, as a function of pixels."""
    import torch

    from vitq.quantization.graph.class_maps import class_map
    from vitq.quantization.graph.outputs import join
    from vitq.quantization.model.results import taken_tensors

    means, stds = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))

    def run(pixels: UInt8Array) -> FloatArray:
        with torch.inference_mode(), prints_aside():
            x = (torch.from_numpy(pixels.copy()) / 255 - means) / stds
            results = [value.numpy() for value in taken_tensors(module(x)).values()]
        if output is Output.ARGMAX:
            results = [class_map(value) for value in results]
        return join(results, len(pixels))

    return run


def float_model(folder: Path) -> tuple[Any, tuple[int, int, int]]:
    """Return the original model, loaded again from where the quantizer found it.

    Args:
        folder: of the artifact.

    Returns:
        The ``torch.nn.Module`` and its input shape (C, H, W).

    Raises:
        VitqError: if its weights or its code are not there any more, or make another model now.
    """
    from vitq.quantization.graph import artifact as storage
    from vitq.quantization.graph.identity import module_hash

    facts = storage.load(folder).provenance
    if IN_MEMORY in facts:
        raise VitqError(
            f"{folder}: its float model was in memory and no file holds it: leave float out of "
            "the backends, or give the model in Python: vitq.load(folder, model=model)"
        )
    weights = facts["weights"]
    prep = Preprocessing.from_json(facts["preprocessing"], folder / QUANTIZE_NAME)
    options = QuantizeOptions(
        model=facts["model"],
        weights=None if weights is None else Path(weights),
        weights_key=facts.get("weights_key"),
        num_classes=facts.get("num_classes"),
        model_kwargs=freeze(facts.get("model_kwargs")),
        output_features=tuple(facts.get("output_features", ())),
        random_weights=facts["random_weights"],
    )
    module = load_float_model(options, prep).module
    if facts.get(STATE, now := module_hash(module)) != now:
        changed = changed_files(facts)
        what = describe_changed(changed or [f"the weights of {facts['model']}"])
        raise VitqError(f"{folder}: {what}")
    return module, prep.input_shape
