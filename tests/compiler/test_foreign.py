"""QDQ files that this project did not quantize, from the file to the library."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load_file

from tests.foreign import session_of
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.inspect import inspect
from vitq.compiler.stages.run import run
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact
from vitq.export.parity import compare, run_onnx
from vitq.models.digits_vit import CHECKPOINT, IMAGE_SIZE, MEAN, STD, digits_vit
from vitq.models.digits_vit.data import calibration_images, eval_images, normalize
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.described import Described
from vitq.quantization.pictures.preprocessing import Color, Resize
from vitq.relay_passes.dialect import names

SHAPE = (1, 3, IMAGE_SIZE, IMAGE_SIZE)
FEW_POINTS = 0.02
Quantized = Callable[..., Path]


class Calibration(CalibrationDataReader):
    """Normalized training pictures."""

    def __init__(self) -> None:
        self._pictures = iter(normalize(calibration_images(32)))

    def get_next(self) -> dict[str, FloatArray] | None:
        """One picture."""
        picture = next(self._pictures, None)
        return None if picture is None else {"image": picture[None]}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """Makes QDQ files of the embedded model as onnxruntime's users do."""
    folder = tmp_path_factory.mktemp("foreign")
    source, prepared = folder / "float.onnx", folder / "prepared.onnx"
    model = digits_vit().eval()
    model.load_state_dict(load_file(CHECKPOINT))
    logging.getLogger().setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(SHAPE),),
            source,
            dynamo=True,
            opset_version=20,
            input_names=["image"],
            external_data=False,
            verbose=False,
        )
    quant_pre_process(source, prepared)

    def make(name: str, activations: QuantType, only: list[str] | None = None) -> Path:
        path = folder / f"{name}.onnx"
        quantize_static(
            prepared,
            path,
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=only,
        )
        return path

    return make


def run_float_input(path: Path, pixels: UInt8Array) -> FloatArray:
    """Logits of onnxruntime for a file that takes normalized pixels."""
    session = session_of(path)
    return np.concatenate([session.run(None, {"image": x[None]})[0] for x in normalize(pixels)])


@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_an_onnxruntime_file_from_end_to_end(
    quantized: Quantized, activations: QuantType, tmp_path: Path
) -> None:
    path = quantized(str(activations), activations)
    said = Described(size=(8, 8), resize=Resize.SQUASH, resize_size=(10, 10), color=Color.BGR)
    options = CompileOptions(mean=MEAN, std=STD, artifacts=tmp_path, pictures=said)
    folder = compile_model(path, options)
    prep = open_compiled(folder).preprocessing
    assert (prep.resize_size, prep.color, prep.mean) == ((40, 40), "BGR", MEAN)
    assert prep.assumed == ("bicubic",)
    checks = {check.name: check for check in verify(folder)}
    assert {"golden", "random", "all 0", "all 255"} <= set(checks)
    assert checks["random"].against == "interpreter"
    assert all(check.different == 0 for check in checks.values())
    pixels, labels = eval_images()
    np.save(tmp_path / "x.npy", pixels)
    assert run(folder, tmp_path / "x.npy", tmp_path / "y.npy") == (len(labels), 10)
    ours, theirs = np.load(tmp_path / "y.npy"), run_float_input(path, np.array(pixels))
    accuracy, expected = ((logits.argmax(1) == labels).mean() for logits in (ours, theirs))
    assert expected > 0.97 and abs(accuracy - expected) <= FEW_POINTS
    parity = compare(ours, theirs)
    assert parity.argmax_agreement >= 1 - FEW_POINTS and parity.mean_cosine > 0.999
    target = inspect(folder)["targets"]["cpu"]
    assert target["float_islands"] == [] and target["integer_ops"][names.SHIFTMAX] == 4


def test_metadata_and_external_data_are_read_and_both_backends_agree(
    quantized: Quantized, tmp_path: Path
) -> None:
    model = onnx.load(quantized("batch", QuantType.QUInt8))
    for key, value in (("mean", "0.5 0.5 0.5"), ("std", "0.5 0.5 0.5")):
        helper.set_model_props(model, {**_props(model), f"vitq.{key}": value})
    external = {"save_as_external_data": True, "location": "named.data", "size_threshold": 0}
    onnx.save(model, tmp_path / "named.onnx", **external)
    folder = compile_model(tmp_path / "named.onnx", CompileOptions(artifacts=tmp_path))
    np.save(tmp_path / "x.npy", eval_images(3).images)
    for backend in ("library", "reference"):
        run(folder, tmp_path / "x.npy", tmp_path / f"{backend}.npy", True, backend)  # type: ignore[arg-type]
    library, reference = (np.load(tmp_path / f"{name}.npy") for name in ("library", "reference"))
    np.testing.assert_array_equal(library, reference)
    again = compile_model(tmp_path / "named.onnx", CompileOptions(artifacts=tmp_path))
    assert again == folder


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def test_float_pixels_need_their_normalization(quantized: Quantized, tmp_path: Path) -> None:
    path = quantized("plain", QuantType.QInt8)
    with pytest.raises(VitqError, match=r"input image is float32: give the mean and std"):
        compile_model(path, CompileOptions(artifacts=tmp_path))
    with pytest.raises(VitqError, match=r"3 channels, mean 1 and std 1"):
        compile_model(path, CompileOptions(mean=(0.5,), std=(0.5,), artifacts=tmp_path))
    with pytest.raises(VitqError, match=r"both mean and std"):
        compile_model(path, CompileOptions(mean=MEAN, artifacts=tmp_path))
    assert not list(tmp_path.rglob("model.so"))


def test_partial_quantization_lists_every_float_operator(
    quantized: Quantized, tmp_path: Path
) -> None:
    path = quantized("partial", QuantType.QInt8, ["MatMul"])
    with pytest.raises(VitqError) as error:
        compile_model(path, CompileOptions(mean=MEAN, std=STD, artifacts=tmp_path))
    text = str(error.value)
    # The last LayerNorm has the name of the Gather behind it, which was moved above it.
    for name, count in (("LayerNormalization", 8), ("Gelu", 4), ("Conv", 1)):
        assert f"{name} (x{count})" in text
    assert text.startswith(f"{path}: not integer-only") and "lv" not in text
    assert "the pictures have no quantizer" in text and "op_types_to_quantize=None" in text


def with_channel_scales(path: Path, seed: int) -> onnx.ModelProto:
    """Give each LayerNorm's quantizer a scale for each channel, and its reader float weights."""
    model, rng = onnx.load(path), np.random.default_rng(seed)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    for product in model.graph.node:
        chain = [product]
        for op in ("DequantizeLinear", "QuantizeLinear", "LayerNormalization"):
            source = made.get(chain[-1].input[0])
            chain += [source] if source is not None and source.op_type == op else []
        if product.op_type != "MatMul" or len(chain) != 4:
            continue
        scale, zero = (tensors[name] for name in chain[1].input[1:])
        channels = len(tensors[chain[3].input[1]])
        scales = (scale * rng.uniform(1, 1.3, channels)).astype(np.float32)
        zeros = (zero + rng.integers(-4, 5, channels)).clip(-127, 127).astype(zero.dtype)
        parts = [f"{product.name}.{what}" for what in ("scales", "zeros", "float")]
        for node in chain[1:3]:
            node.input[1:3] = parts[:2]
            node.attribute.append(helper.make_attribute("axis", -1))
        codes, steps = (tensors[n] for n in made[made[product.input[1]].input[0]].input[:2])
        product.input[1] = parts[2]
        values = scales, zeros, np.ascontiguousarray((codes * steps[:, None]).T.astype(np.float32))
        for name, value in zip(parts, values, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def test_channel_scales_before_float_weights(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "channels.onnx"
    model = with_channel_scales(artifact.onnx, 0)
    assert sum(t.name.endswith(".scales") for t in model.graph.initializer) == 9
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    folder = compile_model(path, CompileOptions(artifacts=tmp_path))
    assert all(check.different == 0 for check in verify(folder))
    compiled = open_compiled(folder)
    assert compiled.metadata["float_islands"] == []
    pixels, labels = eval_images()
    ours, theirs = compiled.logits(compiled.library()(np.array(pixels))), run_onnx(path, pixels)
    parity = compare(ours, theirs)
    assert parity.argmax_agreement >= 1 - FEW_POINTS and parity.mean_cosine > 0.998
    assert abs((ours.argmax(1) == labels).mean() - (theirs.argmax(1) == labels).mean()) <= 0.01


def test_evaluate_says_what_a_foreign_file_lacks(artifact: Artifact, tmp_path: Path) -> None:
    folder = compile_model(artifact.onnx, CompileOptions(artifacts=tmp_path))
    with pytest.raises(VitqError, match="float model behind a foreign file is unknown"):
        evaluate(folder, backends=("float", "library"))
    rows = evaluate(folder, count=4)
    assert [row.name for row in rows] == ["onnxruntime", "reference", "library"]
    squashed = CompileOptions(artifacts=tmp_path, pictures=Described(resize=Resize.SQUASH))
    with pytest.raises(VitqError, match="says itself how pictures become its input: leave"):
        compile_model(artifact.onnx, squashed)
    codes = open_compiled(folder).library()(calibration_images(4))
    own = compile_model(artifact.folder, CompileOptions())
    np.testing.assert_array_equal(codes, open_compiled(own).library()(calibration_images(4)))


def test_an_artifact_stays_with_its_own_operators(artifact: Artifact) -> None:
    with pytest.raises(VitqError, match="was quantized for nonlinear = vitq"):
        compile_model(artifact.folder, CompileOptions(nonlinear="ivit"))
