"""The digits Swin: the committed checkpoint, and what about it is like every Swin."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vitq.models.digits_swin import CHECKPOINT, WINDOW_SIZE, digits_swin
from vitq.models.digits_vit.data import load_digits_split
from vitq.models.digits_vit.train import TrainConfig, evaluate, train

REPOSITORY = Path(__file__).parents[2]
MAX_CHECKPOINT_BYTES = 2_000_000
MIN_ACCURACY = 0.97


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """The model with the committed weights, loaded strictly."""
    model = digits_swin().eval()
    model.load_state_dict(load_file(CHECKPOINT), strict=True)
    return model


def test_checkpoint_is_small_float32() -> None:
    assert CHECKPOINT.stat().st_size < MAX_CHECKPOINT_BYTES
    assert {t.dtype for t in load_file(CHECKPOINT).values()} == {torch.float32}


def test_checkpoint_accuracy(trained: torch.nn.Module) -> None:
    accuracy = evaluate(trained, load_digits_split().test)
    assert accuracy >= MIN_ACCURACY
    with safe_open(CHECKPOINT, framework="pt") as file:
        recorded = float(file.metadata()["accuracy"])
    # One image may flip with another BLAS; the metadata has four decimals.
    assert accuracy == pytest.approx(recorded, rel=0, abs=1 / 360 + 1e-4)


def test_a_block_is_shifted_and_its_windows_have_four_masks(trained: torch.nn.Module) -> None:
    first, second = trained.layers
    assert [block.shift_size for block in first.blocks] == [(0, 0), (2, 2)]
    assert [block.shift_size for block in second.blocks] == [(0, 0), (0, 0)]
    masks = first.blocks[1].attn_mask
    keys = WINDOW_SIZE**2
    assert masks.shape == (4, keys, keys)
    assert len({mask.numpy().tobytes() for mask in masks}) == 4
    assert second.downsample.reduction.bias is None


def test_masks_and_biases_decide_answers(trained: torch.nn.Module) -> None:
    """A compiler that loses one of them must not pass the tests of accuracy alone."""
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = trained(x)
        for change in ("masks", "biases"):
            other = digits_swin().eval()
            other.load_state_dict(trained.state_dict())
            for name, value in [*other.named_parameters(), *other.named_buffers()]:
                if name.endswith("attn_mask" if change == "masks" else "bias_table"):
                    value.zero_()
            assert (other(x) - expected).abs().max() > 0.05 * expected.abs().max(), change


def test_training_takes_the_model_it_is_given() -> None:
    first = load_digits_split().train
    few = type(first)(first.images[:32], first.labels[:32])
    config = TrainConfig(seed=3, epochs=1, warmup_epochs=0, batch_size=16)
    one, two = (train(few, config, digits_swin).state_dict() for _ in range(2))
    assert set(one) == set(digits_swin().state_dict())
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=0)


def test_import_is_light() -> None:
    code = "import sys, models.digits_swin; sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
