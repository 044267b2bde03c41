"""`zoo`: models x recipes x targets, each built and proven."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.api.given import given_pictures, preprocessor_of
from vitq.api.workspace import Workspace
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.studies.spreading import Spread
from vitq.compiler.studies.zoo import Zoo, ZooOptions, with_weights
from vitq.compiler.studies.zoo import zoo as stage
from vitq.compiler.target.choice import get_target
from vitq.quantization.model.names import freeze

if TYPE_CHECKING:
    from vitq.api.given import Labels, Pixels, Preprocessor


def zoo(
    models: Sequence[str],
    calibration: "Pixels | None" = None,
    *,
    recipes: Sequence[str] = ("w8a8",),
    targets: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    method: str = "repq",
    weights: str | Path | None = None,
    random_weights: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    image_size: int | tuple[int, int] | None = None,
    preprocessing: "Preprocessor | None" = None,
    pixels: "Pixels | None" = None,
    labels: "Labels | None" = None,
    count: int = 32,
    evaluate_count: int | None = None,
    parallel: int = 1,
    dask: str | None = None,
    artifacts: str | Path | None = None,
) -> Zoo:
    """Build models at several recipes for several targets, and prove their integers.

    Args:
        models: names, as `quantize` takes them.
        calibration: pictures, as `quantize` takes them; None for the embedded models' own, and
            noise for others.
        recipes: bit widths.
        targets: names.
        batches: static batch sizes.
        method: of quantization.
        weights: folder with ``<model>.safetensors``; models that have none there, and none of their
            own, get random ones.
        random_weights: their seed, 0 if None; with it factories and folders get random ones, too.
        model_kwargs: further arguments of ``timm.create_model``, of all models.
        image_size: H = W of the input of all models, or (H, W).
        preprocessing: of models that do not say what their input means, as `quantize` takes it.
        pixels: to evaluate on: (N, C, H, W) uint8, PIL images, a folder or a ``.npy`` file.
        labels: (N,) class numbers of pictures in hand.
        count: how many calibration pictures.
        evaluate_count: how many pictures to evaluate on; None for all.
        parallel: cells at once on this machine.
        dask: ``host:port`` of a dask scheduler, whose workers run the cells.
        artifacts: folder in which artifacts and finished cells are kept, so that a run that was
            stopped goes on; None to keep nothing.

    Returns:
        ``cells``, one for each combination: integers ``compared``, ``size_bytes``, ``latency_ms``,
        ``row`` as of `Library.evaluate`, or why it was ``refused``.

    Raises:
        VitqError: an unknown recipe, method or target, no pictures there, no workers.

    Example:
        >>> found = vitq.zoo(["digits_vit", "digits_swin"], recipes=["w8a8", "w4a8"])
        >>> [(cell.model, cell.recipe, cell.compared, cell.refused) for cell in found.cells]
    """
    workspace = Workspace()
    folder = workspace.folder if artifacts is None else Path(artifacts)
    given = given_pictures(calibration, None, count, "array")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    variants = [
        with_weights(
            QuantizeOptions.parse(
                model=model, recipe=recipe, method=method, calib=given, calib_count=count,
                artifacts=folder, model_kwargs=freeze(model_kwargs), image_size=size,
                preprocessor=preprocessor_of(preprocessing),
            ),
            None if weights is None else Path(weights),
            random_weights,
        )
        for model in models
        for recipe in recipes
    ]  # fmt: skip
    options = ZooOptions(
        targets=[get_target(name) for name in targets],
        batches=tuple(batches),
        pictures=given_pictures(pixels, labels),
        count=evaluate_count,
        spread=Spread(parallel, dask),
    )
    result = stage(variants, options)
    del workspace  # alive until here
    return result
