"""`quantize`: from a float model to a quantized one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.api.given import model_options
from vitq.api.workspace import Workspace, save_artifact
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize as stage
from vitq.compiler.studies.sensitivity import MIXED, mixed_options
from vitq.compiler.support.artifacts import QUANTIZE_NAME, Artifact, read_json
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_file, write_atomically
from vitq.quantization.mixed.budget import Budget
from vitq.quantization.model.given import GivenModel

if TYPE_CHECKING:
    from vitq.api.given import Model, Pixels, Preprocessor


class Quantized:
    """A quantized model; made by `quantize`, taken by `compile` and most other functions.

    Attributes:
        folder: where its files lie: a temporary folder that goes away with this object.
        provenance: what it was made from: model, calibration pictures, recipe, method,
            normalization, versions.
    """

    def __init__(self, artifact: Artifact, workspace: Workspace, module: GivenModel | None) -> None:
        self._artifact = artifact
        self._workspace = workspace
        self._module = module
        self.folder = artifact.folder
        content = read_json(artifact.folder / QUANTIZE_NAME)
        self.provenance: dict[str, Any] = content["provenance"]

    def save(self, folder: str | Path) -> Path:
        """Write the artifact, as ``vitq quantize`` does: ``vitq export`` and ``compile`` take it.

        Args:
            folder: of the artifact; made if needed. An artifact that is there is replaced.

        Returns:
            The folder.

        Raises:
            VitqError: other files lie there.

        Example:
            >>> vitq.quantize("digits_vit").save("out/")
        """
        save_artifact(self._artifact, Path(folder))
        return Path(folder)

    def export(self, path: str | Path) -> Path:
        """Write the model as an ONNX file of QDQ operators, after a check against PyTorch.

        Args:
            path: of the file, ``.onnx``; replaced if it is there.

        Returns:
            The path.

        Raises:
            VitqError: another suffix, or onnxruntime computes something else than PyTorch.

        Example:
            >>> vitq.quantize("digits_vit").export("digits.onnx")
        """
        out = Path(path)
        if out.suffix != ".onnx":
            raise VitqError(f"{out}: the name of an exported file ends in .onnx")
        require_file(out)
        export(self._artifact)
        write_atomically(out, self._artifact.onnx.read_bytes())
        return out

    def __repr__(self) -> str:
        facts = self.provenance
        return f"<vitq.Quantized {facts['model']}, {facts['recipe']['name']}, {facts['method']}>"


def quantize(
    model: "Model",
    calibration: "Pixels | None" = None,
    *,
    recipe: str | Path = "w8a8",
    method: str = "repq",
    nonlinear: str = "vitq",
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    random_weights: int | None = None,
    output_features: Sequence[str] = (),
    output: str = "codes",
    preprocessing: "Preprocessor | None" = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
    count: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    budget_bytes: int | None = None,
    budget_bitops: int | None = None,
    max_drop: float | None = None,
) -> Quantized:
    """Quantize a float model with a few pictures, or with none.

    Args:
        model: a ``torch.nn.Module`` with its weights (copied; it stays as it is), a function that
            returns one, or a name: ``digits_vit`` (embedded), a timm name, ``local-dir:FOLDER``,
            ``hf-hub:ORG/NAME`` (local cache only), ``package.module:name`` of a factory, or a
            float ONNX file, ``model.onnx``. It
            takes float32 (N, C, H, W) and returns logits (N, classes), or any tensors, alone or
            in a tuple, dict or dataclass.
        calibration: raw pixels (N, C, H, W) uint8 of the model's size, a folder of pictures, a
            ``.npy`` file, an iterable of PIL images (resized and cropped as files are), or
            ``"psaq"``, ``"psaq2"``, ``"noise"``: made from the model alone. None only for
            ``digits_vit``, which has its own.
        recipe: bit widths, ``w<bits>a<bits>[-first<bits>][-last<bits>][-out<bits>]``; a recipe's
            ``.json``; or ``mixed``: a width for each layer, measured, within a budget.
        method: ``repq``, ``best``, ``ptq4vit``, ``pdquant``, ``minmax`` or ``percentile``.
        nonlinear: integer Softmax and GELU: ``vitq`` or ``ivit``.
        weights: safetensors, a torch checkpoint, an index of shards or a folder, for a model that
            is named. None: its own, of the embedded one, a folder or a factory.
        weights_key: which weights of a checkpoint with several, such as ``model_ema``.
        num_classes: of a timm model, if not its own number.
        model_kwargs: further arguments of ``timm.create_model``.
        random_weights: seed of random ones instead: structure and speed, no accuracy.
        output_features: results of inner modules to return instead of the model's own, such as
            ``["blocks.3", "norm"]``; its own by name, too.
        output: of maps of scores (N, classes, H, W): ``codes``, or ``argmax``: the class of each
            pixel, uint8.
        preprocessing: how a picture becomes the input, before what the model says itself: a Hugging
            Face image processor, its JSON file or a folder with it, torchvision's
            ``weights.transforms()``, timm's data config, or a mapping with any of
            ``crop_fraction``, ``resize``, ``interpolation``, ``color``, ``orientation``.
        image_size: H = W of the input, or (H, W); comes before `preprocessing`, as the next two.
            A module without timm's ``pretrained_cfg`` or ``default_cfg`` needs `preprocessing`, or
            all three.
        mean: of each channel, in [0, 1] units.
        std: of each channel, likewise.
        name: what a module in hand is called; its class if None.
        count: how many calibration pictures; None takes all in hand, and 32 of any other source.
        seed: 0 takes some of each class, or evenly spaced ones; another one draws some.
        steps: of gradient descent for pictures made from the model.
        budget_bytes: of all weights, with recipe ``mixed``.
        budget_bitops: of one picture, with recipe ``mixed``.
        max_drop: percent of held-out pictures that may get another answer than the float model's:
            layers get 8 bits, the most sensitive ones first, until that holds; what was widened is
            in ``provenance["max_drop"]``.

    Returns:
        The quantized model, in a temporary folder.

    Raises:
        VitqError: an unknown name or option, unsupported operators (all are listed), no weights,
            pictures of another shape or dtype, a model that does not say what its input is.

    Example:
        >>> model = timm.create_model("deit_tiny_patch16_224", pretrained=True)
        >>> q = vitq.quantize(model, pixels, recipe="w8a8")  # pixels: uint8 (32, 3, 224, 224)
    """
    workspace = Workspace()
    mixed = recipe == MIXED
    options = model_options(
        workspace,
        model,
        calibration,
        recipe="w8a8" if mixed else recipe,
        method=method,
        nonlinear=nonlinear,
        weights=weights,
        weights_key=weights_key,
        num_classes=num_classes,
        model_kwargs=model_kwargs,
        random_weights=random_weights,
        output_features=output_features,
        output=output,
        preprocessing=preprocessing,
        image_size=image_size,
        mean=mean,
        std=std,
        name=name,
        count=count,
        seed=seed,
        steps=steps,
        max_drop=max_drop,
    )
    if mixed:
        options = mixed_options(options, Budget(budget_bytes, budget_bitops))
    elif budget_bytes is not None or budget_bitops is not None:
        raise VitqError(f"a budget is for recipe 'mixed', not {str(recipe)!r}")
    return Quantized(stage(options), workspace, options.module)
