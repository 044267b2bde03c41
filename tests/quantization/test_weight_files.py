"""Files of weights: loaded, or called what they are with the remedy; never a traceback."""

import enum
import json
import logging
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.quantization.vits import Toy
from vitq.numerics.errors import VitqError
from vitq.quantization.model import checkpoints
from vitq.quantization.model.weights import load_weights, read_weights

STATE = Toy().state_dict()
NAMES = list(STATE)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "w.pth").touch()
    monkeypatch.setattr(checkpoints, "describe_other", fail)
    with pytest.raises(
        VitqError, match=r"w\.pth cannot be read: Permission denied: check the file"
    ):
        read_weights(tmp_path / "w.pth")


class Level(enum.Enum):
    """A class of somebody's."""

    HIGH = 1


FILES = {
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page.safetensors": (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "empty.pth": (b"", "the file is empty"),
    "model.gguf": (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
    "keras.bin": (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file, as Keras writes it"),
    "one.npy": (b"\x93NUMPY\x01\x00", "a single NumPy array"),
    "w.pth.gz": (b"\x1f\x8b\x08\x00", "compressed by gzip: run gunzip"),
    "model.onnx": (
        b"\x08\x09\x12\x07pytorch",
        "an ONNX file: a float one is a model (--model FILE.onnx)",
    ),
    "flax_model.msgpack": (b"\x81\xa6params", "Flax's weights"),
    "graph.pb": (b"\x0a\x10", "a TensorFlow graph"),
    "model.tflite": (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model"),
    "picture.pth": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "facts.json": (b'{"error": "gated"}', "a JSON file: give the weights beside it"),
    "graph.xml": (b"<?xml version='1.0'?><net/>", "an XML file"),
    "cut.pth": (b"PK\x03\x04" + bytes(40), "its end is missing or damaged"),
    "text.pth": (b"hello", "neither safetensors nor a checkpoint"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_called_what_they_are(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VitqError, match="cannot be read safely") as raised:
        read_weights(tmp_path / name)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_programs_and_archives(tmp_path: Path) -> None:
    linear = torch.nn.Linear(3, 2)
    x = torch.zeros(2, 3)
    torch.save(linear, tmp_path / "whole.pth")
    torch.save({"model": linear.state_dict(), "level": Level.HIGH}, tmp_path / "enum.pth")
    torch.export.save(torch.export.export(linear, (x,)), tmp_path / "program.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(linear, x).save(str(tmp_path / "script.pt"))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": Level.HIGH}, protocol=2))
    expected = {
        "whole.pth": "a whole pickled module (torch.nn.modules.linear.Linear)",
        "enum.pth": f"it holds objects of {__name__}.Level, which would have to be unpickled",
        "program.pt2": "an exported program (torch.export.save",
        "script.pt": "a TorchScript archive",
        "other.zip": "a zip archive of other files",
        "plain.pkl": "cannot be read safely",
    }
    for name, said in expected.items():
        with pytest.raises(VitqError) as raised:
            read_weights(tmp_path / name)
        assert said in str(raised.value), name
        assert "\n" not in str(raised.value)
    assert "model.state_dict()" in str(raised.value) or "give one" in str(raised.value)


def shards(folder: Path, suffix: str) -> Path:
    """Weights in two files with an index."""
    names = [f"part-{i}{suffix}" for i in range(2)]
    for index, name in enumerate(names):
        part = {key: STATE[key] for key in NAMES[index::2]}
        if suffix == ".bin":
            torch.save(part, folder / name)
        else:
            safetensors.torch.save_file(part, folder / name)
    stem = "pytorch_model.bin" if suffix == ".bin" else "model.safetensors"
    index_file = folder / f"{stem}.index.json"
    placed = {key: names[i % 2] for i, key in enumerate(NAMES)}
    index_file.write_text(json.dumps({"weight_map": placed}))
    return index_file


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("by_folder", [False, True])
def test_shards_are_put_together(suffix: str, by_folder: bool, tmp_path: Path) -> None:
    index = shards(tmp_path, suffix)
    load_weights(module := Toy(), tmp_path if by_folder else index)
    for key, value in STATE.items():
        assert torch.equal(module.state_dict()[key], value)
    (tmp_path / f"part-1{suffix}").unlink()
    with pytest.raises(VitqError, match=rf"incomplete, part-1{suffix} missing: download all"):
        read_weights(index)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../b"}}', "nul\0"]
)
def test_damaged_indexes(content: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(VitqError, match=r"index of shards needs|incomplete"):
        read_weights(path)


def test_folders(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "optimizer.pt")
    with pytest.raises(VitqError, match="a folder without weights: give a file"):
        read_weights(tmp_path)
    (tmp_path / "checkpoint-5").mkdir()
    torch.save(STATE, tmp_path / "checkpoint-5" / "pytorch_model.bin")
    with pytest.raises(VitqError, match=r"hold none themselves: give one of checkpoint-5$"):
        read_weights(tmp_path)
    assert set(read_weights(tmp_path / "checkpoint-5")) == set(STATE)
    for name in ("a.pth", "b.pth"):
        torch.save(STATE, tmp_path / name)
    with pytest.raises(VitqError, match=r"a folder of several: give one of a\.pth, b\.pth"):
        read_weights(tmp_path)
    with pytest.raises(VitqError, match=r"c\.pth do not exist: .* has a\.pth, b\.pth"):
        read_weights(tmp_path / "c.pth")
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "tf_model.h5").write_bytes(b"\x89HDF")
    with pytest.raises(VitqError, match=r"tf_model\.h5 is Keras' weights"):
        read_weights(tmp_path / "tf")


def test_what_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match=r"cannot be read: .*too long: check the path"):
        read_weights(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(VitqError, match=r"do not exist|cannot be read"):
        read_weights(tmp_path / "loop")


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in STATE.items()})
    load_weights(Toy(), tmp_path / "w.npz")
    np.savez(tmp_path / "o.npz", w=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(VitqError, match="cannot be read safely"):
        read_weights(tmp_path / "o.npz")


def tensors() -> st.SearchStrategy[Any]:
    """Tensors of every kind that a file may hold, most with a shape of the model's."""
    shapes = st.sampled_from([tuple(v.shape) for v in STATE.values()] + [(), (0,), (2, 3)])
    kinds = st.sampled_from(
        ["float", "half", "double", "int8", "bool", "complex", "nan", "sparse", "csr", "meta",
         "parameter", "quantized", "numpy", "expanded"]
    )  # fmt: skip
    return st.builds(make_tensor, shapes, kinds)


def make_tensor(shape: tuple[int, ...], kind: str) -> Any:
    """One of them."""
    x = torch.ones(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: dict[str, Any] = {
            "half": x.half, "double": x.double, "int8": x.char, "bool": x.bool, "numpy": x.numpy,
            "complex": lambda: x.to(torch.complex64), "nan": lambda: x * torch.nan,
            "sparse": x.to_sparse, "csr": lambda: x.to_sparse_csr() if x.ndim == 2 else x,
            "meta": lambda: x.to("meta"), "parameter": lambda: torch.nn.Parameter(x),
            "quantized": lambda: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            "expanded": lambda: torch.ones(()).expand(shape),
        }  # fmt: skip
        return made.get(kind, lambda: x)()


def contents() -> st.SearchStrategy[Any]:
    """Nested checkpoints with odd keys and values."""
    names = st.sampled_from([*NAMES, *(f"module.{name}" for name in NAMES), "model", "ema", ""])
    keys = st.one_of(names, st.integers(0, 3), st.text(max_size=3))
    plain = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), tensors())
    return st.recursive(
        st.one_of(plain, st.dictionaries(keys, tensors(), max_size=9)),
        lambda inner: st.one_of(
            st.dictionaries(keys, inner, max_size=5), st.lists(inner, max_size=3)
        ),
        max_leaves=8,
    )


@given(contents(), st.sampled_from([None, "model", "ema.x", ""]))
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_content_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: Any, key: str | None
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "w.pth"
    torch.save(content, path)
    refused_or_loaded(path, key)


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_damage_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "w.pth"
    kind = data.draw(st.sampled_from(["zip", "legacy", "safetensors"]))
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save({"model": STATE}, path, _use_new_zipfile_serialization=kind == "zip")
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(damaged), 3000) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))])
    refused_or_loaded(path, None)


def refused_or_loaded(path: Path, key: str | None) -> None:
    """Load a file, or see it refused in a line."""
    logging.disable()
    try:
        load_weights(Toy(), path, key)
    except VitqError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        logging.disable(logging.NOTSET)
