"""Models and pictures in hand: no file, no name, no change to what the caller has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitq
from tests.compiler import factories
from vitq.models.digits_vit import MEAN, STD
from vitq.numerics.arrays import IntArray, UInt8Array

NORMALIZATION = {"image_size": 32, "mean": MEAN, "std": STD}
Digits = tuple[UInt8Array, IntArray]


@pytest.fixture(scope="module")
def own(digits_model: torch.nn.Module, calibration: UInt8Array) -> vitq.Quantized:
    """The embedded model, as if it were a user's."""
    return vitq.quantize(digits_model, calibration, **NORMALIZATION)  # type: ignore[arg-type]


def test_a_module_gives_the_integers_of_its_name(
    own: vitq.Quantized, quantized: vitq.Quantized
) -> None:
    ours, theirs = (q.folder / "quantized.safetensors" for q in (own, quantized))
    assert ours.read_bytes() == theirs.read_bytes()
    assert own.provenance["model"] == "DigitsViT"
    assert own.provenance["calibration"] == {"source": "array", "pictures": 32}


def test_a_module_stays_as_it_is(calibration: UInt8Array) -> None:
    module = factories.plain().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    vitq.quantize(module, calibration[:4], method="minmax")
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_weights_in_memory_decide(calibration: UInt8Array) -> None:
    torch.manual_seed(0)
    module = factories.plain()
    first = vitq.quantize(module, calibration[:4], method="minmax")
    same = vitq.quantize(module, calibration[:4], method="minmax")
    with torch.no_grad():
        module.head.bias[0] += 1  # type: ignore[index,union-attr,operator]
    other = vitq.quantize(module, calibration[:4], method="minmax")
    prints = [q.provenance["fingerprint"] for q in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_the_float_model_of_a_module_is_the_one_that_was_given(
    own: vitq.Quantized, digits_model: torch.nn.Module, digits: Digits, tmp_path: Path
) -> None:
    library = vitq.compile(own, batch=8)
    pixels, labels = digits[0][:16], digits[1][:16]
    rows = library.evaluate(pixels, labels, backends=["float", "library"])
    assert rows["float"].top1 is not None and rows["library"].agreement is not None
    folder = library.save(tmp_path / "out")
    loaded = vitq.load(folder)
    with pytest.raises(vitq.VitqError, match=r"in memory and no file holds it: leave float out"):
        loaded.evaluate(pixels, labels)
    alone = loaded.evaluate(pixels, labels, backends=["library"])
    assert list(alone) == ["library"] and alone["library"].agreement is None
    again = vitq.load(folder, model=digits_model).evaluate(pixels, labels)
    assert again["library"].agreement == rows["library"].agreement
    with pytest.raises(vitq.VitqError, match="was not quantized from this model"):
        vitq.load(folder, model=factories.plain()).evaluate(pixels, labels)


def test_a_module_must_say_what_its_input_is(
    digits_model: torch.nn.Module, calibration: UInt8Array
) -> None:
    with pytest.raises(vitq.VitqError, match=r"does not say .* \(in Python image_size, mean and"):
        vitq.quantize(digits_model, calibration)
    with pytest.raises(vitq.VitqError, match="pass --image-size, --mean and --std"):
        vitq.quantize(digits_model, calibration, mean=MEAN, std=STD)


def test_a_factory_is_called(calibration: UInt8Array) -> None:
    q = vitq.quantize(factories.plain, calibration[:4], method="minmax")
    assert q.provenance["model"] == "plain"
    q = vitq.quantize(lambda: factories.plain(), calibration[:4], method="minmax", name="mine")
    assert q.provenance["model"] == "mine"
    with pytest.raises(vitq.VitqError, match=r"not_a_module\(\) returned int, not a torch\.nn\.M"):
        vitq.quantize(factories.not_a_module, calibration)  # type: ignore[arg-type]


def test_a_timm_name_needs_weights(calibration: UInt8Array) -> None:
    with pytest.raises(vitq.VitqError, match="no weights given"):
        vitq.quantize("vit_tiny_patch16_224", calibration)


def test_a_factorys_name(calibration: UInt8Array) -> None:
    name = "tests.compiler.factories:plain"
    q = vitq.quantize(name, calibration[:4], random_weights=0, method="minmax")
    assert q.provenance["random_weights"] == 0


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (7, {}, "model is a int: give a torch.nn.Module, a name, or a function"),
        ("digits_vit", {"name": "mine"}, "is for a module in hand: 'digits_vit' has a name"),
        (factories.plain, {"name": "digits_vit"}, "cannot be called 'digits_vit'"),
        (factories.plain, {"name": "a/b"}, "cannot be called 'a/b': give another name"),
        (factories.plain, {"weights": "w.pt"}, "has its weights: leave weights"),
        (factories.plain, {"calibration": None}, "plain: no calibration pictures: give uint8"),
        (factories.plain, {"calibration": 3}, "pictures are a int: give uint8"),
        (factories.plain, {"calibration": ["a.png"]}, "yields str: it must yield PIL images"),
        (factories.plain, {"calibration": "nowhere/"}, "nowhere/: no such folder"),
        (factories.plain, {"calibration": []}, "holds no pictures"),
        ("digits_vit", {"budget_bytes": 9}, "a budget is for recipe 'mixed', not 'w8a8'"),
        ("digits_vit", {"max_drop": 101}, "--max-drop 101: give a percentage, 0 to 100"),
        ("digits_vit", {"recipe": "w9a9"}, "choose 2 to 8"),
        ("digits_vit", {"method": "best of all"}, "best of all"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(
    model: object, given: dict[str, object], message: str, calibration: UInt8Array
) -> None:
    with pytest.raises(vitq.VitqError, match=message) as error:
        vitq.quantize(model, **{"calibration": calibration, **given})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_pictures_of_another_kind_are_refused(calibration: UInt8Array) -> None:
    for pixels in (calibration.astype(np.float32), calibration[:, :, :28]):
        with pytest.raises(vitq.VitqError, match=r"array (is float32|has shape)"):
            vitq.quantize(factories.plain, pixels)


def test_pil_images_are_prepared_as_files_are(calibration: UInt8Array, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 50 + i, 3), np.uint8)) for i in range(4)]
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")

    def endless() -> Iterator[Image.Image]:
        while True:
            yield from images

    torch.manual_seed(0)
    model = factories.plain()
    listed = vitq.quantize(model, images, method="minmax")
    drawn = vitq.quantize(model, endless(), count=4, method="minmax")
    files = vitq.quantize(model, tmp_path, method="minmax")
    contents = [(q.folder / "quantized.safetensors").read_bytes() for q in (listed, drawn, files)]
    assert contents[0] == contents[1] == contents[2]


def test_an_array_is_used_whole_and_a_draw_is_a_draw(calibration: UInt8Array) -> None:
    torch.manual_seed(0)
    many = np.concatenate([calibration, 255 - calibration])
    given = [{}, {"count": 8}, {"count": 8, "seed": 1}]
    counts, prints = [], set()
    for options in given:
        q = vitq.quantize(factories.plain, many, method="minmax", **options)  # type: ignore[arg-type]
        counts.append(q.provenance["calibration"]["pictures"])
        prints.add(q.provenance["fingerprint"])
    assert counts == [64, 8, 8] and len(prints) == 3


def test_a_path_is_never_the_name_of_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(vitq.VitqError, match=r"\./psaq: no such folder"):
        vitq.quantize("digits_vit", Path("psaq"))


def test_no_pictures_at_all() -> None:
    q = vitq.quantize("digits_vit", "noise", count=4, method="minmax")
    assert q.provenance["calibration"]["source"] == "noise, seed 0"


def test_methods_are_compared_on_a_module_in_hand(
    digits_model: torch.nn.Module, calibration: UInt8Array, digits: Digits
) -> None:
    found = vitq.compare_methods(
        digits_model,
        {"real": calibration[:8], "inverse": 255 - calibration[:8]},
        recipes=["w8a8", "w4a8"],
        methods=["minmax"],
        pixels=digits[0][:40],
        labels=digits[1][:40],
        image_size=32,
        mean=MEAN,
        std=STD,
    )
    names = [(cell.calibration, cell.recipe) for cell in found.cells]
    assert names == [(s, r) for s in ("real", "inverse") for r in ("w8a8", "w4a8")]
    assert all(cell.row is not None and cell.row.top1 is not None for cell in found.cells)
    top1 = [cell.row.top1 for cell in found.cells if cell.row]
    assert top1[0] >= 38 and found.float_row.images == 40


def test_sensitivity_of_one_width(calibration: UInt8Array) -> None:
    found = vitq.sensitivity(factories.plain, calibration[:4], widths=[4], method="minmax")
    assert found.complete and {entry.bits for entry in found.measured if entry.layer} == {4}


def test_studies_take_the_weights_that_quantize_takes(calibration: UInt8Array) -> None:
    small = {"img_size": 32, "patch_size": 16, "depth": 1, "embed_dim": 12, "num_heads": 2}
    given: dict[str, Any] = {"model_kwargs": small, "num_classes": 3, "random_weights": 0}
    found = vitq.compare_methods(
        "vit_tiny_patch16_224", calibration[:4], pixels=calibration[:4], labels=[0, 1, 2, 2],
        methods=["minmax"], image_size=32, **given,
    )  # fmt: skip
    assert found.cells[0].row is not None
    with pytest.raises(vitq.VitqError, match="label of picture 3 is 3, but the model has 3"):
        vitq.compare_methods(
            "vit_tiny_patch16_224", calibration[:4], pixels=calibration[:4], labels=[0, 1, 2, 3],
            image_size=32, **given,
        )  # fmt: skip
    measured = vitq.sensitivity(
        "vit_tiny_patch16_224", calibration[:2], widths=[4], method="minmax", image_size=32, **given
    )
    assert measured.costs[-1].weights == 3 * 12
    for study in (vitq.compare_methods, vitq.sensitivity):
        with pytest.raises(vitq.VitqError, match="--weights-key chooses in a file"):
            study("vit_tiny_patch16_224", calibration, weights_key="model_ema")  # type: ignore[operator]
