"""`compare_methods` and `sensitivity`: what recipes and methods cost in accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.api.given import given_pictures, model_options
from vitq.api.workspace import Workspace
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.studies.compare_methods import Comparison
from vitq.compiler.studies.compare_methods import compare_methods as compare_stage
from vitq.compiler.studies.sensitivity import WIDTHS, Measurement
from vitq.compiler.studies.sensitivity import sensitivity as sensitivity_stage

if TYPE_CHECKING:
    from vitq.api.given import Labels, Model, Pixels, Preprocessor


def compare_methods(
    model: "Model",
    calibration: "Mapping[str, Pixels] | Pixels | None" = None,
    *,
    recipes: Sequence[str] = ("w8a8",),
    methods: Sequence[str] = ("repq",),
    seeds: Sequence[int] = (0,),
    pixels: "Pixels | None" = None,
    labels: "Labels | None" = None,
    backend: str = "fake",
    nonlinear: str = "vitq",
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    random_weights: int | None = None,
    preprocessing: "Preprocessor | None" = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    count: int | None = None,
    evaluate_count: int | None = None,
) -> Comparison:
    """Compare methods x widths x calibration sources on one model.

    Args:
        model: as `quantize` takes it, and so are the options from `nonlinear` to `count`.
        calibration: as `quantize` takes it; or several of these by a name each.
        recipes: bit widths.
        methods: names.
        seeds: of the calibration pictures; with several of them there are mean and spread.
        pixels: to evaluate on: (N, C, H, W) uint8, PIL images, a folder or a ``.npy`` file; None
            for the embedded model's held-out digits.
        labels: (N,) class numbers of pictures in hand.
        backend: ``fake`` (quantizers simulated, fast), ``reference`` (integers) or ``library``
            (compiled for this machine and verified).
        nonlinear: integer Softmax and GELU.
        weights: of a model that is named.
        weights_key: which weights of a checkpoint with several.
        num_classes: of a timm model, if not its own number.
        model_kwargs: further arguments of ``timm.create_model``.
        random_weights: seed of random ones instead.
        preprocessing: how a picture becomes the input, as `quantize` takes it.
        image_size: H = W of the input, or (H, W).
        mean: of each channel.
        std: of each channel.
        count: how many calibration pictures.
        evaluate_count: how many pictures to evaluate on; None for all.

    Returns:
        ``float_row``, and ``cells``: one for each combination, with its ``row`` (as of
        `Library.evaluate`) or why it was ``refused``; ``summaries`` over the seeds.

    Raises:
        VitqError: no pictures, an unknown name, a model that cannot be loaded.

    Example:
        >>> found = vitq.compare_methods("digits_vit", recipes=["w8a8", "w4a8"], methods=["repq"])
        >>> [(cell.recipe, cell.row.top1) for cell in found.cells]
    """
    workspace = Workspace()
    sources = calibration if isinstance(calibration, Mapping) else {"array": calibration}
    named = [
        QuantizeOptions.parse(recipe=recipe, method=method, nonlinear=nonlinear)
        for recipe in recipes
        for method in methods
    ]
    variants = []
    for name, source in sources.items():
        first = model_options(
            workspace, model, source, source=name, nonlinear=nonlinear, weights=weights,
            weights_key=weights_key, num_classes=num_classes, model_kwargs=model_kwargs,
            random_weights=random_weights, preprocessing=preprocessing, image_size=image_size,
            mean=mean, std=std, count=count,
        )  # fmt: skip
        variants += [
            replace(first, recipe=options.recipe, method=options.method, calib_seed=seed)
            for options in named
            for seed in seeds
        ]
    result = compare_stage(variants, given_pictures(pixels, labels), evaluate_count, backend)
    del workspace  # alive until here
    return result


def sensitivity(
    model: "Model",
    calibration: "Pixels | None" = None,
    *,
    widths: Sequence[int] = WIDTHS,
    method: str = "repq",
    nonlinear: str = "vitq",
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    random_weights: int | None = None,
    preprocessing: "Preprocessor | None" = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Measurement:
    """Measure how much narrower weights or inputs of each layer change the logits.

    Args:
        model: as `quantize` takes it, and so is everything but `widths`.
        calibration: pictures.
        widths: to measure beside 8 bits, of 2 to 7.
        method: of calibration.
        nonlinear: integer Softmax and GELU.
        weights: of a model that is named.
        weights_key: which weights of a checkpoint with several.
        num_classes: of a timm model, if not its own number.
        model_kwargs: further arguments of ``timm.create_model``.
        random_weights: seed of random ones instead.
        preprocessing: how a picture becomes the input, as `quantize` takes it.
        image_size: H = W of the input, or (H, W).
        mean: of each channel.
        std: of each channel.
        count: how many calibration pictures.
        seed: which ones.

    Returns:
        ``measured`` (for each layer, part and width: ``sqnr_db``, ``kl``, ``noise``), ``costs``
        (weights and MACs of each layer), ``modules`` (names of the PyTorch modules).

    Raises:
        VitqError: as of `quantize`, or widths out of range.

    Example:
        >>> found = vitq.sensitivity("digits_vit", widths=[4])
        >>> max(found.measured, key=lambda entry: entry.noise).layer
    """
    workspace = Workspace()
    options = model_options(
        workspace, model, calibration, method=method, nonlinear=nonlinear, weights=weights,
        weights_key=weights_key, num_classes=num_classes, model_kwargs=model_kwargs,
        random_weights=random_weights, preprocessing=preprocessing, image_size=image_size,
        mean=mean, std=std, count=count, seed=seed,
    )  # fmt: skip
    result = sensitivity_stage(options, tuple(widths))
    del workspace  # alive until here
    return result
