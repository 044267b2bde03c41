"""What reads files that somebody else wrote: seeds, damage, and one reading, for each parser.

A reading may succeed or end in a `VitqError` or an `OSError`, which the command line says in one
line. Anything else is a failure, and so is one that takes longer than `LONGEST_S` or leaves files
behind.
"""

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.mutations import Random, bytes_damaged, json_damaged, onnx_damaged

LONGEST_S = 10.0
SHAPE = (3, 8, 8)


class Parser(NamedTuple):
    """One reader of files.

    Attributes:
        suffix: of its files.
        seeds: makes some good files.
        damage: makes a bad one of a good one.
        read: reads a file; beside it nothing else lies.
    """

    suffix: str
    seeds: Callable[[], list[bytes]]
    damage: Callable[[bytes, Random], bytes]
    read: Callable[[Path], Any]


def _onnx_seeds() -> list[bytes]:
    import vitq.compiler.foreign.importer  # noqa: F401  its start is not the reading's time
    import vitq.relay_passes.pipeline  # noqa: F401
    from tests.relay_passes.qdq_vit import build, make_weights

    return [build(make_weights()).SerializeToString()]


def _read_onnx(path: Path) -> None:
    from vitq.compiler.codegen.importing import Meaning, import_model

    import_model(path, Meaning(1, (0.5,) * 3, (0.25,) * 3))


def _float_seeds() -> list[bytes]:
    from tests.compiler.foreign.network.files import pieces

    with tempfile.TemporaryDirectory() as folder:  # torch.export's start is not the reading's time
        path = Path(folder) / "m.onnx"
        path.write_bytes(pieces())
        _read_float(path)
    return [pieces()]


def _read_float(path: Path) -> None:
    from vitq.compiler.foreign.network.reading import read_network
    from vitq.quantization.graph.tracing import trace

    network = read_network(path)
    trace(network, (network.in_chans, *(network.image_size or (32, 32))))


def _npy_seeds() -> list[bytes]:
    found = []
    for array in (np.zeros((2, *SHAPE), np.uint8), np.asfortranarray(np.ones((1, *SHAPE), ">i4"))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        found.append(buffer.getvalue())
    return found


def _read_npy(path: Path) -> None:
    from vitq.quantization.pictures.raw_pixels import open_pixels, read_pixels

    number, one = open_pixels(path, SHAPE)
    assert [one(index).shape for index in range(number)] == [SHAPE] * number
    read_pixels(path, SHAPE)


def _npz_seeds() -> list[bytes]:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=np.zeros((1, *SHAPE), np.uint8), codes=np.zeros((1, 4), int))
    return [buffer.getvalue()]


def _read_npz(path: Path) -> None:
    from vitq.numerics.npy import read_npz

    read_npz(path, "pixels", "codes")


def _recipe_seeds() -> list[bytes]:
    from vitq.quantization.plan.recipe import LayerBits, Recipe

    layers = (LayerBits("blocks.0.attn.qkv", 4, 8), LayerBits("head", 6, 6))
    return [json.dumps(Recipe(4, 8, layers=layers, label="mixed").to_json()).encode()]


def _read_recipe(path: Path) -> None:
    from vitq.quantization.plan.recipe import Recipe

    recipe = Recipe.parse(str(path))
    assert recipe.name and all(isinstance(bits.weight_bits, int) for bits in recipe.layers)


def _label_seeds() -> list[bytes]:
    return [
        b"a.png,1\nb.png,0\n",
        b'file,label\n"a.png",3\r\nb.png,2\r\n',
        b"\xef\xbb\xbfa.png,1\n",
    ]


def _read_labels(path: Path) -> None:
    from vitq.quantization.pictures.described import standard
    from vitq.quantization.pictures.pictures import load_pictures

    for name in ("a.png", "b.png"):
        (path.parent / name).write_bytes(_picture(name == "a.png"))
    (path.parent / "labels.csv").write_bytes(path.read_bytes())
    load_pictures(str(path.parent), standard(SHAPE, (0.5,) * 3, (0.5,) * 3), None, "evaluation")


def _picture(colour: bool, form: str = "PNG") -> bytes:
    from PIL import Image

    numbers = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(numbers if colour else numbers[..., 0]).save(buffer, form)
    return buffer.getvalue()


def _picture_seeds() -> list[bytes]:
    return [_picture(c, form) for form in ("PNG", "JPEG", "BMP", "PPM", "TIFF") for c in (0, 1)]


def _read_picture(path: Path) -> None:
    from vitq.quantization.pictures.described import standard
    from vitq.quantization.pictures.pixels import load_picture

    load_picture(path, standard(SHAPE, (0.5,) * 3, (0.5,) * 3))


def _net() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))


def _checkpoint_seeds() -> list[bytes]:
    import torch

    found = []
    state = _net().state_dict()
    for content in (
        state,
        {"model": state, "epoch": 3},
        {f"module.{k}": v for k, v in state.items()},
    ):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        found.append(buffer.getvalue())
    return found


def _safetensors_seeds() -> list[bytes]:
    import safetensors.torch

    return [safetensors.torch.save(_net().state_dict())]


def _read_weights(path: Path) -> None:
    from vitq.quantization.model.models import load_weights

    load_weights(_net(), path)


def _graph() -> Any:
    """A quantized graph of three nodes, as `quantization.graph.artifact` stores it."""
    from vitq.numerics.qparams import QuantParams
    from vitq.quantization.graph.artifact import QuantizedModel
    from vitq.quantization.graph.graph import Graph, Node, OpKind

    step = QuantParams(np.float32(0.1), np.int32(0), -128, 127)
    nodes = {
        "input": Node("input", OpKind.INPUT, (), (1, *SHAPE), 0, {}, {}, step),
        "flat": Node(
            "flat", OpKind.RESHAPE, ("input",), (1, 192), 0, {}, {"shape": [1, 192]}, step
        ),
    }
    graph = Graph(nodes, {"logits": "flat"}, {}, {})
    return QuantizedModel(graph, np.zeros((1, *SHAPE), np.uint8), {"nonlinear": "vitq"})


def _stored() -> tuple[bytes, bytes]:
    """Both files of an artifact."""
    import tempfile

    from vitq.quantization.graph import artifact

    with tempfile.TemporaryDirectory() as folder:
        artifact.save(Path(folder), _graph())
        names = artifact.JSON_NAME, artifact.TENSORS_NAME
        json_file, tensors = ((Path(folder) / name).read_bytes() for name in names)
    return json_file, tensors


def _read_artifact(json_file: bytes, tensors: bytes, folder: Path) -> None:
    from vitq.quantization.graph import artifact

    (folder / artifact.JSON_NAME).write_bytes(json_file)
    (folder / artifact.TENSORS_NAME).write_bytes(tensors)
    artifact.load(folder)


def _metadata_seeds() -> list[bytes]:
    content = {
        "batch": 1, "target": "cpu", "entry": "x86-64", "architectures": None,
        "inputs": [{"name": "x", "shape": [1, *SHAPE], "dtype": "uint8"}],
        "outputs": [{"name": "y", "shape": [1, 4], "dtype": "int8", "scale": 0.1, "zero_point": 3}],
        "mean": [0.5] * 3, "std": [0.25] * 3, "nonlinear": "vitq",
        "metadata_props": {"vitq.model": "x"}, "sha256": {"model.so": "0", "golden.npz": "0"},
    }  # fmt: skip
    return [json.dumps(content).encode()]


def _read_metadata(path: Path) -> None:
    from vitq.compiler.codegen.compiled import open_compiled
    from vitq.compiler.support.artifacts import METADATA_NAME

    folder = path.parent / "cpu"
    folder.mkdir(exist_ok=True)
    (folder / METADATA_NAME).write_bytes(path.read_bytes())
    compiled = open_compiled(folder)
    compiled.logits(np.zeros((1, 4), np.int8))
    assert compiled.batch == compiled.input_shape[0] and compiled.own_pictures is None
    for use in (lambda: compiled.target, compiled.library, compiled.golden):
        _expecting_refusal(use)


def _expecting_refusal(use: Callable[[], Any]) -> None:
    """Use what may also be refused."""
    from vitq.numerics.errors import VitqError

    try:
        use()
    except VitqError:
        pass


def _log_seeds() -> list[bytes]:
    import tvm.s_tir.meta_schedule.database  # noqa: F401  its start is not the reading's time

    return [b'[0, [[[], []], [0.1], {"kind": "llvm"}, []]]\n[1, [[[], []], [0.2], {}, []]]\n']


def _read_log(path: Path) -> None:
    from vitq.compiler.tuning.log import read_log

    folder = path.parent / "log"
    folder.mkdir(exist_ok=True)
    for name in ("database_tuning_record.json", "database_workload.json"):
        (folder / name).write_bytes(path.read_bytes())
    read_log(folder)


PARSERS: dict[str, Parser] = {
    "onnx": Parser(".onnx", _onnx_seeds, onnx_damaged, _read_onnx),
    "float-onnx": Parser(".onnx", _float_seeds, onnx_damaged, _read_float),
    "npy": Parser(".npy", _npy_seeds, bytes_damaged, _read_npy),
    "npz": Parser(".npz", _npz_seeds, bytes_damaged, _read_npz),
    "recipe": Parser(".json", _recipe_seeds, json_damaged, _read_recipe),
    "labels": Parser(".csv", _label_seeds, bytes_damaged, _read_labels),
    "pictures": Parser(".png", _picture_seeds, bytes_damaged, _read_picture),
    "checkpoint": Parser(".pth", _checkpoint_seeds, bytes_damaged, _read_weights),
    "safetensors": Parser(".safetensors", _safetensors_seeds, bytes_damaged, _read_weights),
    "artifact": Parser(
        ".json",
        lambda: [_stored()[0]],
        json_damaged,
        lambda path: _read_artifact(path.read_bytes(), _stored()[1], path.parent),
    ),
    "tensors": Parser(
        ".safetensors",
        lambda: [_stored()[1]],
        bytes_damaged,
        lambda path: _read_artifact(_stored()[0], path.read_bytes(), path.parent),
    ),
    "metadata": Parser(".json", _metadata_seeds, json_damaged, _read_metadata),
    "log": Parser(".json", _log_seeds, json_damaged, _read_log),
}
"""By name; a folder of `corpus` has the name of its parser."""
