"""The digits ViT: the committed checkpoint, its data and its held-out split."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vitq.models.digits_vit import CHECKPOINT, IMAGE_SIZE, NUM_CLASSES, digits_vit
from vitq.models.digits_vit.data import (
    calibration_images,
    eval_images,
    load_digits_split,
    normalize,
    split_indices,
    upscale,
)
from vitq.models.digits_vit.train import TrainConfig, evaluate, save_checkpoint, train

REPOSITORY = Path(__file__).parents[2]
MAX_CHECKPOINT_BYTES = 2_000_000
MIN_ACCURACY = 0.97
TEST_INDICES_SHA256 = "ff3f9e1a9408a46289393df4661eff58968e5bb79156727836b5435cd01775f8"
IMAGES_SHA256 = "3f1da75af554b243b9a0531ad87e86a280aff5644881585d71b955e5ac05ef4e"

# What the exporter has to know; anything new here is work there.
EXPORTED_OPS = {
    "_operator.getitem",
    "aten.add.Tensor",
    "aten.cat.default",
    "aten.conv2d.default",
    "aten.expand.default",
    "aten.flatten.using_ints",
    "aten.gelu.default",
    "aten.layer_norm.default",
    "aten.linear.default",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.scaled_dot_product_attention.default",
    "aten.select.int",
    "aten.slice.Tensor",
    "aten.sym_size.int",
    "aten.transpose.int",
    "aten.unbind.int",
}


def _sha256(array: np.ndarray) -> str:
    """Hash the values in a byte order that is the same on every machine."""
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(np.ascontiguousarray(little_endian).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """Return the model with the committed weights, loaded strictly."""
    model = digits_vit().eval()
    model.load_state_dict(load_file(CHECKPOINT), strict=True)
    return model


def test_checkpoint_is_small_float32() -> None:
    """The weights are small enough to live in git."""
    assert CHECKPOINT.stat().st_size < MAX_CHECKPOINT_BYTES
    assert {t.dtype for t in load_file(CHECKPOINT).values()} == {torch.float32}


def test_checkpoint_accuracy(trained: torch.nn.Module) -> None:
    """The committed weights classify the held-out digits, as their metadata says."""
    accuracy = evaluate(trained, load_digits_split().test)
    assert accuracy >= MIN_ACCURACY
    with safe_open(CHECKPOINT, framework="pt") as file:
        recorded = float(file.metadata()["accuracy"])
    # One image may flip with another BLAS; the metadata has four decimals.
    assert accuracy == pytest.approx(recorded, rel=0, abs=1 / 360 + 1e-4)


def test_tensor_names() -> None:
    """The names are those of timm's VisionTransformer; code that walks ViTs relies on them."""
    in_block = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = ["patch_embed.proj", "norm", "head"]
    layers += [f"blocks.{i}.{layer}" for i in range(4) for layer in in_block]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(digits_vit().state_dict()) == expected | {"cls_token", "pos_embed"}


def test_same_function_as_timm(trained: torch.nn.Module) -> None:
    """The tensors fit timm's model by name and shape, and the logits agree."""
    try:
        from timm.models import VisionTransformer
    except (ImportError, RuntimeError) as error:
        # RuntimeError: timm imports torchvision, whose CUDA build refuses to load on a CPU torch.
        pytest.skip(f"timm cannot be imported: {error}")
    twin = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=4,
        embed_dim=64,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
        num_classes=NUM_CLASSES,
    ).eval()
    twin.load_state_dict(trained.state_dict(), strict=True)
    x = torch.from_numpy(normalize(eval_images(8).images))
    with torch.inference_mode():
        torch.testing.assert_close(trained(x), twin(x), rtol=1e-4, atol=1e-4)


def test_export_has_a_dynamic_batch_and_only_known_ops(trained: torch.nn.Module) -> None:
    """torch.export keeps the batch symbolic and yields no op outside the list above."""
    batch = torch.export.Dim("batch")
    example = (torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE),)
    exported = torch.export.export(trained, example, dynamic_shapes=({0: batch},))
    calls = (node.target for node in exported.graph.nodes if node.op == "call_function")
    names = {
        str(t) if isinstance(t, torch._ops.OpOverload) else f"{t.__module__}.{t.__name__}"
        for t in calls
    }
    assert names <= EXPORTED_OPS
    x = torch.from_numpy(normalize(eval_images(5).images))
    with torch.inference_mode():
        torch.testing.assert_close(exported.module()(x), trained(x), rtol=1e-5, atol=1e-5)


def test_split_is_disjoint_complete_and_stable() -> None:
    """The held-out images never change, or accuracies could not be compared."""
    datasets = pytest.importorskip("sklearn.datasets")
    labels = datasets.load_digits().target.astype(np.int64)
    train_indices, test_indices = split_indices(labels)
    assert not set(train_indices) & set(test_indices)
    assert sorted([*train_indices, *test_indices]) == list(range(len(labels)))
    assert _sha256(test_indices) == TEST_INDICES_SHA256


def test_images_are_uint8_and_stable() -> None:
    """Shapes, types, range and bytes of both parts."""
    split = load_digits_split()
    for part, count in ((split.train, 1437), (split.test, 360)):
        assert part.images.shape == (count, 3, IMAGE_SIZE, IMAGE_SIZE)
        assert part.images.dtype == np.uint8
        assert part.labels.shape == (count,)
        assert part.labels.dtype == np.int64
        assert part.images.min() == 0
        assert part.images.max() == 255
    assert np.bincount(split.test.labels).tolist() == [36] * NUM_CLASSES
    assert _sha256(split.test.images) == IMAGES_SHA256


def test_no_image_is_in_both_parts() -> None:
    """No two scans are identical across the split, so the test part is really unseen."""
    split = load_digits_split()
    train_images = {image.tobytes() for image in split.train.images}
    assert not any(image.tobytes() in train_images for image in split.test.images)


def test_upscale_is_bilinear() -> None:
    """The integer formula agrees with PyTorch's float one, and flat images stay flat."""
    rng = np.random.RandomState(1)
    scans = rng.randint(0, 17, size=(4, 8, 8))
    size = (IMAGE_SIZE, IMAGE_SIZE)
    scaled = torch.from_numpy(scans)[:, None].double() * 255 / 16
    expected = torch.nn.functional.interpolate(scaled, size, mode="bilinear")
    # Half a gray level is the rounding to uint8.
    np.testing.assert_allclose(upscale(scans)[:, :1], expected.numpy(), rtol=0, atol=0.5)
    assert np.unique(upscale(np.full((1, 8, 8), 16))).tolist() == [255]


def test_calibration_images_come_from_the_train_part() -> None:
    """Calibration sees the first training images and eval the first held-out ones."""
    split = load_digits_split()
    np.testing.assert_array_equal(calibration_images(16), split.train.images[:16])
    np.testing.assert_array_equal(eval_images(16).images, split.test.images[:16])
    assert len(eval_images().labels) == 360


@pytest.mark.parametrize("n", [0, -1, 1438])
def test_calibration_images_refuses_an_impossible_count(n: int) -> None:
    """The error names the valid range."""
    with pytest.raises(ValueError, match="calibration images: choose 1 to 1437"):
        calibration_images(n)


def test_normalize_maps_the_byte_range_to_one() -> None:
    """0 becomes -1 and 255 becomes 1, exactly."""
    pixels = np.zeros((1, 3, 2, 1), dtype=np.uint8)
    pixels[:, :, 1] = 255
    normalized = normalize(pixels)
    assert normalized.dtype == np.float32
    assert normalized[0, 0, :, 0].tolist() == [-1.0, 1.0]


def test_training_is_deterministic_and_saves_its_recipe(tmp_path: Path) -> None:
    """Two short runs give the same weights; the file carries its metadata and no leftovers."""
    first = load_digits_split().train
    few = type(first)(first.images[:32], first.labels[:32])
    config = TrainConfig(seed=3, epochs=1, warmup_epochs=0, batch_size=16)
    one, two = train(few, config), train(few, config)
    output = tmp_path / "weights.safetensors"
    save_checkpoint(one, output, config, accuracy=0.5)
    assert list(tmp_path.iterdir()) == [output]
    saved = load_file(output)
    for name, tensor in two.state_dict().items():
        torch.testing.assert_close(saved[name], tensor, rtol=0, atol=0)
    with safe_open(output, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["accuracy"], metadata["seed"], metadata["epochs"]) == ("0.5000", "3", "1")


def test_import_is_light() -> None:
    """Importing the package and its constants loads neither torch nor scikit-learn."""
    code = (
        "import sys, models.digits_vit, models.digits_vit.data; "
        "sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
