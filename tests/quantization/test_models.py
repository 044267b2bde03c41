"""Loading float models: names, factories, and weights that are never unpickled."""

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.quantization.vits import Toy, lively
from vitq.models.digits_vit import IMAGE_SIZE, MEAN, STD
from vitq.numerics.errors import VitqError
from vitq.quantization.model.models import load_model, load_weights, read_weights
from vitq.quantization.pictures.described import Described, standard

PREPROCESSING = standard((3, 32, 32), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with factories of all kinds, importable as `some_factories`."""
    module = ModuleType("some_factories")

    def with_config() -> nn.Module:
        model = Toy()
        model.default_cfg = {  # type: ignore[assignment]
            "input_size": (3, 32, 32),
            "mean": [0.1, 0.2, 0.3],
            "std": [1, 1, 1],
        }
        return model

    module.toy = Toy  # type: ignore[attr-defined]
    module.with_config = with_config  # type: ignore[attr-defined]
    module.number = lambda: 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_factories", module)
    return module


def test_the_embedded_model_has_weights_and_preprocessing() -> None:
    model = load_model("digits_vit")
    assert model.preprocessing.input_shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    assert (model.preprocessing.mean, model.preprocessing.std) == (MEAN, STD)
    assert not model.module.training
    random = load_model("digits_vit", seed=1)
    weight, other = (m.module.head.weight for m in (model, random))  # type: ignore[union-attr]
    assert not torch.equal(weight, other)  # type: ignore[arg-type]


def test_a_timm_model_brings_its_preprocessing() -> None:
    model = load_model("deit_tiny_patch16_224", seed=0)
    assert model.preprocessing.input_shape == (3, 224, 224)
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)
    assert model.preprocessing.std == (0.229, 0.224, 0.225)


SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 3, "num_classes": 5}


@pytest.mark.parametrize("said", [Described(size=(32, 48)), standard((3, 32, 48), MEAN, STD)])
def test_a_timm_model_is_built_for_the_size_that_is_asked_for(
    said: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = load_model("vit_tiny_patch16_224", seed=0, arguments=SMALL).module
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        found = load_model(
            "vit_tiny_patch16_224", tmp_path / "w.pth", preprocessing=said, arguments=SMALL
        )
    assert "model: built for 32 x 48 (its own size is 224 x 224)" in caplog.text
    assert "pos_embed resampled from (1, 197, 24) to (1, 7, 24)" in caplog.text
    assert found.preprocessing.input_shape == (3, 32, 48)
    assert found.module(torch.zeros(1, 3, 32, 48)).shape == (1, 5)


def test_a_size_in_the_models_arguments_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """And the random weights do not depend on whether it was built twice."""
    said = Described(size=(32, 32))
    given = load_model(
        "vit_tiny_patch16_224", seed=0, preprocessing=said, arguments={**SMALL, "img_size": 32}
    )
    built = load_model("vit_tiny_patch16_224", seed=0, preprocessing=said, arguments=SMALL)
    assert all(map(torch.equal, given.module.parameters(), built.module.parameters()))


def test_a_network_without_positions_takes_any_size(caplog: pytest.LogCaptureFixture) -> None:
    arguments = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "num_classes": 5}
    found = load_model(
        "convnext_atto", seed=0, preprocessing=Described(size=(32, 64)), arguments=arguments
    )
    assert found.preprocessing.input_shape == (3, 32, 64)
    assert "built for" not in caplog.text


def test_random_weights_depend_on_the_seed_alone(factories: ModuleType) -> None:
    factories.linear = lambda: nn.Linear(3, 3)  # type: ignore[attr-defined]
    first, again, other = (
        load_model("some_factories:linear", seed=seed, preprocessing=PREPROCESSING).module
        for seed in (7, 7, 8)
    )
    assert torch.equal(first.weight, again.weight)  # type: ignore[arg-type]
    assert not torch.equal(first.weight, other.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["deit_tinny_patch16_224", "nothing", "a/b", ""])
def test_an_unknown_name_lists_what_can_be_given(name: str) -> None:
    with pytest.raises(VitqError, match=rf"model '{name}' is unknown: give digits_vit") as raised:
        load_model(name, seed=0)
    assert "package.module:factory" in str(raised.value)
    if name.startswith("deit"):
        assert "such as deit" in str(raised.value)
        assert str(raised.value).endswith("(did you mean deit_tiny_patch16_224?)")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such:thing", "cannot be imported"),
        ("some_factories:missing", "cannot be imported"),
        (":thing", "a module is wanted"),
        (".relative:thing", "a module is wanted"),
        ("some_factories:number", "returned int, not a torch.nn.Module"),
        ("some_factories:toy", "does not say what its input is: pass --image-size"),
    ],
)
def test_factory_errors(name: str, message: str, factories: ModuleType) -> None:
    with pytest.raises(VitqError, match=message):
        load_model(name, seed=0)


def test_a_factory_with_a_configuration(factories: ModuleType) -> None:
    model = load_model("some_factories:with_config", seed=0)
    assert model.name == "some_factories.with_config"
    assert model.preprocessing == standard((3, 32, 32), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


def test_given_preprocessing_wins(factories: ModuleType) -> None:
    model = load_model("some_factories:with_config", seed=0, preprocessing=PREPROCESSING)
    assert model.preprocessing is PREPROCESSING


def test_no_weights_is_an_error_that_names_the_options() -> None:
    with pytest.raises(VitqError, match=r"no weights given: pass --weights FILE, or --random"):
        load_model("vit_tiny_patch16_224")


def test_a_factory_may_bring_its_weights(
    factories: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        load_model("some_factories:with_config")
    assert "weights: those that some_factories:with_config gave its model" in caplog.text


def test_a_model_in_another_width_is_taken_as_float32(
    factories: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    factories.half = lambda: factories.with_config().half()  # type: ignore[attr-defined]
    with caplog.at_level("INFO"):
        module = load_model("some_factories:half").module
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert "the model computes in float16; it is taken as float32" in caplog.text


def test_a_model_without_values_is_refused(factories: ModuleType) -> None:
    factories.meta = lambda: factories.with_config().to("meta")  # type: ignore[attr-defined]
    with pytest.raises(VitqError, match=r"has no values \(device meta\)"):
        load_model("some_factories:meta")


def save_as(kind: str, path: Path, state: dict[str, torch.Tensor]) -> Path:
    """One of the files that are accepted."""
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(state, path)
        return path
    content: dict[str, Any] = {
        "plain": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state, "optimizer": {"lr": 0.1}},
    }[kind]
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "plain", "state_dict", "model"])
def test_kinds_of_weight_files(kind: str, tmp_path: Path, factories: ModuleType) -> None:
    source = lively(Toy(), seed=5)
    path = save_as(kind, tmp_path / "weights.pth", source.state_dict())
    model = load_model("some_factories:with_config", path).module
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = Toy().state_dict()
    state["extra.weight"] = torch.zeros(3)
    del state["fc.bias"], state["fc.weight"]
    state["last.bias"] = torch.zeros(9)
    with pytest.raises(VitqError, match="do not fit the model") as raised:
        load_weights(Toy(), save_as("plain", tmp_path / "w.pth", state))
    message = str(raised.value)
    assert "2 missing: fc.weight, fc.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape: last.bias (9,) instead of (5,)" in message


def test_long_lists_are_cut(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match=r"8 missing: [^;]*, \.\.\.; 1 unexp"):
        load_weights(Toy(), save_as("plain", tmp_path / "w.pth", {"head.x": torch.zeros(1)}))


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("evil.txt", "w"))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if writer == "torch":
        torch.save({"model": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(VitqError, match="cannot be read safely") as raised:
        read_weights(path)
    assert not (tmp_path / "evil.txt").exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["safetensors", "plain"])
@pytest.mark.parametrize("kept", [0, 1, 7, 100, 0.5, 0.99])
def test_truncated_files(kind: str, kept: float, tmp_path: Path) -> None:
    path = save_as(kind, tmp_path / "w.pth", Toy().state_dict())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(VitqError, match="cannot be read safely"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(1000)])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(VitqError, match=r"cannot be read safely|hold no state dict"):
            load_weights(Toy(), path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"model": {"epoch": 3}}, torch.zeros(3)])
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(VitqError, match="hold no state dict"):
        read_weights(tmp_path / "w.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match="do not exist"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["mm.py:tiny", "./mm:tiny", ":tiny", "my-model:tiny"])
def test_a_file_is_no_module(name: str) -> None:
    with pytest.raises(VitqError, match="a module is wanted, and no file"):
        load_model(name, seed=0)
