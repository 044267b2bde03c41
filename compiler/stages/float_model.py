"""The float model that options name, loaded."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.quantization.model.names import folder_name, is_onnx

if TYPE_CHECKING:
    from vitq.quantization.model.models import LoadedModel
    from vitq.quantization.pictures.described import Described
    from vitq.quantization.pictures.preprocessing import Preprocessing


def load_float_model(
    options: QuantizeOptions, preprocessing: "Preprocessing | None" = None
) -> "LoadedModel":
    """Return the float model that the options name.

    Args:
        options: model, weights, results and what its input means.
        preprocessing: what its input means, where that is known already.
    """
    from vitq.quantization.model.models import given_model, load_model
    from vitq.quantization.model.results import with_features

    said = preprocessing or options.described
    if options.module is None and is_onnx(options.model):
        loaded = _of_file(options.model, said)
    elif options.module is not None:
        loaded = given_model(options.model, options.module, said)
    else:
        loaded = load_model(
            options.model,
            options.weights,
            options.random_weights,
            said,
            weights_key=options.weights_key,
            arguments=options.model_arguments,
        )
    return replace(loaded, module=with_features(loaded.module, options.output_features))


def _of_file(model: str, said: "Preprocessing | Described | None") -> "LoadedModel":
    """Return an ONNX file's model; what its input means lies beside it, or the user says it."""
    from vitq.compiler.foreign.network.reading import read_network
    from vitq.quantization.model.models import LoadedModel, prepared
    from vitq.quantization.pictures.inputs import input_of

    path = Path(model).expanduser()
    network = read_network(path)
    found = input_of(model, network, said, path)
    return LoadedModel(folder_name(model), prepared(network), found)
