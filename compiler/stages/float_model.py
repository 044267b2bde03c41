"""The float model that options name, loaded."""

from dataclasses import replace
from typing import TYPE_CHECKING

from vitq.compiler.stages.quantize_options import QuantizeOptions

if TYPE_CHECKING:
    from vitq.quantization.model.models import LoadedModel
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
    if options.module is not None:
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
