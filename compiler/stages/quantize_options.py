"""Everything that decides a quantized model, as the command line and the API give it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.support.embedded import (
    EMBEDDED_MODEL,
    EMBEDDED_MODELS,
    GENERATED,
    own_pictures,
)
from vitq.compiler.support.limits import (
    LARGEST_COUNT,
    LARGEST_MADE,
    LARGEST_SEED,
    LARGEST_SIDE,
    check_number,
)
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.model.given import GivenModel
from vitq.quantization.model.names import folder_name, is_onnx
from vitq.quantization.pictures.described import Described
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.preprocessing import (
    Color,
    Interpolation,
    Orientation,
    Resize,
    check_normalization,
)
from vitq.quantization.pictures.processors import read_processor
from vitq.quantization.plan.methods import METHODS, Method, get_method
from vitq.quantization.plan.output import Output
from vitq.quantization.plan.recipe import Recipe


class Option(NamedTuple):
    """Makes a field, or what `QuantizeOptions.parse` reads, an option of the command line, too."""

    help: str


MOST_CLASSES = 10**6
W8A8 = Recipe()


def _is_plain(arguments: dict[str, Any]) -> bool:
    """Whether an artifact can hold arguments."""
    try:
        json.dumps(arguments)
    except (TypeError, ValueError):
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Everything that decides the quantized model, as values; `parse` reads names.

    The command line makes its options of what is annotated with `Option`, here and in `parse`
    (`compiler.cli.quantizing`).

    Attributes:
        model: see `quantization.model.names`; of a model in hand, what it is called.
        weights: file, index of shards or folder; None for the model's own.
        weights_key: which state dict of the file, with dots; None for the first that fits.
        random_weights: seed for random weights instead.
        num_classes: of a model of timm, where it is not the architecture's own.
        model_kwargs: further arguments of ``timm.create_model``.
        output_features: names of inner modules whose results the network returns, and of results
            of the model's own (`quantization.model.results`); none for all of its own.
        output: whether maps of scores become maps of classes
            (`quantization.graph.class_maps`).
        calib: folder, ``.npy``, ``digits``, one of `compiler.support.embedded.GENERATED`, or
            pictures in hand; None for the embedded model's own.
        calib_count: how many calibration pictures.
        recipe: widths, and the family of integer Softmax and GELU.
        method: how ranges and weights are chosen.
        preprocessor: who says what the input means: transformers' JSON file, a folder with one,
            or what was read from an object in hand; before what the model says itself.
        image_size: (H, W) of the input; this and the next come before `preprocessor`.
        crop_fraction: side of the input by the side of the resized picture.
        resize: see `quantization.pictures.preprocessing`.
        interpolation: likewise.
        mean: per channel, in [0, 1] units.
        std: likewise.
        color: order of the channels.
        orientation: of pictures with an EXIF orientation.
        max_drop: percent of held-out pictures that may get another answer than the float model's;
            layers get 8 bits until that holds (`compiler.stages.max_drop`). None for no bound.
        artifacts: root folder of all artifacts.
        calib_seed: of a source with more pictures than needed, 0 takes some of each class, or
            evenly spaced ones where no classes are known, another seed draws some; of pictures
            that are made without data, it decides every one.
        calib_steps: of gradient descent for them; None for the generator's own number.
        save_images: folder to write the calibration pictures to, for people; decides nothing.
        module: the model itself, where it is in hand.
    """

    model: Annotated[
        str,
        Option(
            "digits_vit, digits_swin, scenes_swin, scenes_yolos (embedded), a timm name, hf:FOLDER "
            "(Transformers), local-dir:FOLDER, hf-hub:ORG/NAME (from the local cache), a float "
            "FILE.onnx, or package.module:factory"
        ),
    ] = EMBEDDED_MODEL
    weights: Annotated[
        Path | None,
        Option("safetensors or torch checkpoint, its index of shards, or a save_pretrained folder"),
    ] = None
    weights_key: Annotated[
        str | None, Option("which weights of a checkpoint with several, such as model_ema")
    ] = None
    random_weights: Annotated[int | None, Option("seed of random weights, instead of weights")] = (
        None
    )
    num_classes: Annotated[int | None, Option("of a timm model, if not its own number")] = None
    model_kwargs: Annotated[
        tuple[tuple[str, Any], ...],
        Option("key=value for timm.create_model, such as img_size=384; may be repeated"),
    ] = ()
    output_features: Annotated[
        tuple[str, ...],
        Option(
            "results of inner modules instead of the model's own, with commas, such as "
            "blocks.3,norm; the model's own by name, too: logits"
        ),
    ] = ()
    output: Annotated[
        Output,
        Option(
            "of maps (N, classes, H, W): codes (scores as integers), or argmax (uint8, the class "
            "of each pixel)"
        ),
    ] = Output.CODES
    calib: Annotated[
        str | GivenPictures | None,
        Option(
            "calibration pictures: a folder, .npy of uint8 (N, C, H, W), or made from the model "
            "alone: psaq, psaq2, noise"
        ),
    ] = None
    calib_count: Annotated[int, Option("how many calibration pictures")] = 32
    calib_seed: Annotated[
        int,
        Option(
            "which pictures: 0 some of each class, or evenly spaced ones of a list; others draw "
            "some of all; also the seed of pictures made from the model"
        ),
    ] = 0
    calib_steps: Annotated[
        int | None, Option("steps of gradient descent for them; more is better and slower")
    ] = None
    save_images: Annotated[
        Path | None, Option("folder for the calibration pictures and a contact sheet")
    ] = None
    recipe: Recipe = W8A8
    method: Method = METHODS["repq"]
    preprocessor: Annotated[
        Path | Described | None,
        Option("a Hugging Face preprocessor_config.json, or a folder with one, for what follows"),
    ] = None
    image_size: Annotated[
        tuple[int, int] | None, Option("of the input: one number, or height,width")
    ] = None
    crop_fraction: Annotated[
        float | None, Option("part of the resized picture's side that is seen, such as 0.875 or 1")
    ] = None
    resize: Annotated[
        Resize | None,
        Option("aspect kept (shortest side fits, or longest and padded), squash, or none"),
    ] = None
    interpolation: Annotated[Interpolation | None, Option("of the resizing")] = None
    mean: Annotated[
        tuple[float, ...] | None, Option("of the input, for pixels in [0, 1], with commas")
    ] = None
    std: Annotated[tuple[float, ...] | None, Option("standard deviation, likewise")] = None
    color: Annotated[Color | None, Option("order of the channels that the model takes")] = None
    orientation: Annotated[
        Orientation | None, Option("of photos that are stored turned (EXIF): keep or apply")
    ] = None
    max_drop: Annotated[
        float | None,
        Option(
            "percent of held-out pictures whose answer may change, such as 0.5: layers get 8 bits, "
            "the most sensitive ones first, until that holds"
        ),
    ] = None
    artifacts: Annotated[Path, Option("root folder of all artifacts")] = Path("artifacts")
    module: GivenModel | None = None

    def __post_init__(self) -> None:
        """Refuse what can be refused without loading anything."""
        most = LARGEST_MADE if self.calib in GENERATED else LARGEST_COUNT
        check_number("the number of calibration pictures is", self.calib_count, 1, most)
        check_number("the number of calibration steps is", self.calib_steps, 1, LARGEST_COUNT)
        check_number("--random-weights", self.random_weights, 0, LARGEST_SEED, "0 to 2**63 - 1")
        check_number("--max-drop", self.max_drop, 0, 100, "a percentage, 0 to 100")
        for side in self.image_size or ():
            check_number("--image-size", side, 1, LARGEST_SIDE)
        if not 0 <= self.calib_seed < 2**32 - 1:
            raise VitqError(f"the calibration seed is {self.calib_seed}: give 0 to {2**32 - 2}")
        if self.mean is not None and self.std is not None:
            check_normalization(self.mean, self.std)
        if self.weights is not None and self.random_weights is not None:
            raise VitqError("give --weights or --random-weights, not both")
        if self.weights_key is not None and self.weights is None:
            raise VitqError("--weights-key chooses in a file: give --weights, too")
        if self.num_classes is not None and not 0 <= self.num_classes <= MOST_CLASSES:
            raise VitqError(
                f"the number of classes is {self.num_classes}: give 0 to {MOST_CLASSES}"
            )
        if not _is_plain(dict(self.model_kwargs)):
            raise VitqError("model_kwargs: give numbers, texts, truths, None, and lists of these")
        twice = [name for name in self.output_features if self.output_features.count(name) > 1]
        if twice or "" in self.output_features:
            raise VitqError(
                f"--output-features {','.join(self.output_features)}: name each module once, with "
                "commas between, such as blocks.3,norm"
            )
        if self.module is not None:
            self._check_module()
        elif is_onnx(self.model):
            self._check_file()

    def _check_module(self) -> None:
        """Refuse a model in hand that is called like one that is not."""
        if self.weights is not None or self.random_weights is not None:
            raise VitqError("a model in hand has its weights: leave weights and random_weights out")
        if self.model_arguments:
            raise VitqError("a model in hand is built: leave num_classes and model_kwargs out")
        plain = self.model == Path(self.model).name and ":" not in self.model
        if not plain or self.model in ("", ".", "..", *EMBEDDED_MODELS):
            raise VitqError(f"a model in hand cannot be called {self.model!r}: give another name")

    def _check_file(self) -> None:
        """Refuse what is for models that are built, and not read from a file."""
        if self.weights is not None or self.random_weights is not None:
            raise VitqError(f"{self.model} has its weights: leave weights and random_weights out")
        if self.model_arguments:
            raise VitqError(f"{self.model} is built: leave num_classes and model_kwargs out")

    @classmethod
    def parse(
        cls,
        *,
        recipe: Annotated[
            str,
            Option(
                "widths, w<bits>a<bits>[-first<bits>][-last<bits>][-out<bits>], or a recipe's .json"
            ),
        ] = "w8a8",
        method: Annotated[
            str, Option("repq, best, ptq4vit, pdquant, minmax or percentile")
        ] = "repq",
        nonlinear: Annotated[str, Option("integer Softmax and GELU: vitq or ivit")] = "vitq",
        **others: Any,
    ) -> Self:
        """Read what has a name; a recipe's file is read here, and only here.

        Args:
            recipe: see `quantization.plan.recipe`.
            method: see `quantization.plan.methods`.
            nonlinear: see `numerics.families`.
            **others: the other attributes.

        Raises:
            VitqError: a name that is unknown, or attributes that do not go together.
        """
        family = Nonlinear.parse(nonlinear)
        return cls(recipe=Recipe.parse(recipe, family), method=get_method(method), **others)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What ``timm.create_model`` gets beside the name."""
        classes = {} if self.num_classes is None else {"num_classes": self.num_classes}
        return {**dict(self.model_kwargs), **classes}

    @cached_property
    def described(self) -> Described:
        """What is said of the input, all options together; the processor's file is read once.

        Raises:
            VitqError: the processor's file is missing, damaged, or of another kind.
        """
        file = self.preprocessor
        base = read_processor(file) if isinstance(file, Path) else file or Described()
        given = Described(
            size=self.image_size,
            mean=self.mean,
            std=self.std,
            color=self.color,
            orientation=self.orientation,
            resize=self.resize,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
        )
        return given.over(base)

    @property
    def artifact(self) -> Artifact:
        """Where the result goes."""
        return self.artifact_of(self.recipe_name)

    @property
    def recipe_name(self) -> str:
        """What the result's recipe is called: widened ones like what they come from and the bound.

        Also where nothing needed to be widened, as the name tells before the work is done.
        """
        name = self.recipe.name
        return name if self.max_drop is None else f"{name}-drop{self.max_drop:g}"

    def artifact_of(self, recipe: str) -> Artifact:
        """Where the result of a recipe of that name goes, which need not be made yet."""
        family = self.recipe.nonlinear
        suffix = "" if family is Nonlinear.VITQ else f"-{family}"
        return Artifact(
            self.artifacts / folder_name(self.model) / f"{recipe}-{self.method.name}{suffix}"
        )

    @property
    def calibration_name(self) -> str:
        """What `calibration_source` is called.

        Raises:
            VitqError: if there is none.
        """
        source = self.calibration_source
        return source.source if isinstance(source, GivenPictures) else source

    @property
    def calibration_source(self) -> str | GivenPictures:
        """Where the calibration pictures come from.

        Raises:
            VitqError: if nothing was given and the model has none of its own.
        """
        if self.calib is not None:
            return self.calib
        if self.model in EMBEDDED_MODELS:
            return own_pictures(self.model)
        raise VitqError(
            f"{self.model}: no calibration pictures: pass --calib FOLDER or FILE.npy, or psaq to "
            "make some from the model"
        )
