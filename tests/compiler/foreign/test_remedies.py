"""Each known cause is found in a file that shows it, and its remedy is said."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.compiler.foreign.graphs import MEAN, NCHW, STD, WIDTH, Body, plain
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.foreign.facts import Facts
from vitq.compiler.foreign.reading import read_onnx
from vitq.compiler.foreign.refusal import LONGEST
from vitq.compiler.foreign.remedies import CAUSES, causes_of
from vitq.numerics.errors import RangeError, VitqError

MEANING = Meaning(1, MEAN, STD)
CODES = np.ones((WIDTH, 3, 2, 2), np.int8)
MS = "com.microsoft"


def test_an_output_that_nothing_computes(tmp_path: Path) -> None:
    body = Body()
    start(body)
    path = body.save(tmp_path / "m.onnx", body.const(np.ones((1, 2, 3), np.float32)))
    with pytest.raises(VitqError, match=r"m\.onnx: no operator computes its output c\d+"):
        import_model(path, MEANING)


@pytest.mark.parametrize(
    ("bias", "said"),
    [
        (1e9, r"node /block/Add_\d+ \(Add\): a bias of \d+ leaves int32"),
        (np.nan, r"node /block/Add_\d+ \(Add\): a bias is not finite \(NaN or Inf\)"),
    ],
)
def test_what_leaves_its_range_is_named_as_in_the_file(
    bias: float, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = Body()
    matrix = body.codes(np.ones((WIDTH, WIDTH), np.int8))
    product = body.op("MatMul", body.quantize(start(body), 1 / 16), matrix)
    shifted = body.op("Add", product, body.const(np.full(WIDTH, bias, np.float32)))
    path = body.save(tmp_path / "m.onnx", body.quantize(shifted, 1 / 16))
    with pytest.raises(RangeError, match=rf"m\.onnx: {said}"):
        import_model(path, MEANING)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kinds", [("LogSoftmax",), ("Sigmoid",), ("Softmax", "Log"), ("Tanh",)])
def test_what_comes_behind_the_logits_is_to_be_left_out(
    kinds: tuple[str, ...], tmp_path: Path
) -> None:
    body = Body()
    x = body.quantize(start(body), 1 / 16)
    for kind in kinds:
        x = body.op(kind, x)
    path = body.save(tmp_path / "m.onnx", x)
    with pytest.raises(VitqError, match=rf"behind the logits .*{kinds[-1]}.*: leave that out: the"):
        import_model(path, MEANING)


def start(b: Body) -> str:
    """The patch embedding, quantized."""
    return b.patches(b.quantize("x"), b.codes(CODES))


def behind(*kinds: str, opset: int = 21, domain: str = "") -> Callable[[Path], Path]:
    """Operators between two quantizers behind the patches."""

    def save(path: Path) -> Path:
        body = Body()
        x = start(body)
        for kind in kinds:
            x = body.op(kind, x, domain=domain)
        return body.save(path, body.quantize(x), opset=opset)

    return save


def nothing(path: Path) -> Path:
    body = Body()
    x = body.op("Conv", "x", body.const(np.ones((5, 3, 2, 2), np.float32)), strides=[2, 2])
    for _ in range(40):
        x = body.op("Gelu", x)
    return body.save(path, x)


def dynamic(path: Path) -> Path:
    model = onnx.load(plain(path))
    model.graph.node.append(
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "b", "c"], name="dynamic")
    )
    onnx.save(model, path)
    return path


def half(path: Path) -> Path:
    body = Body()
    x = body.op("Cast", start(body), to=TensorProto.FLOAT16)
    return body.save(path, body.op("Add", x, body.const(np.float16(1))), dtype=TensorProto.FLOAT16)


def control(path: Path) -> Path:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "then",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, NCHW[1])],
    )
    body = Body()
    yes = body.op("If", body.const(np.array(True)), then_branch=branch, else_branch=branch)
    return body.save(path, body.quantize(yes), ("n", "c", "h", "w"))


def typed(dtype: int) -> Callable[[Path], Path]:
    """Weights of an element type that NumPy lacks."""

    def save(path: Path) -> Path:
        body = Body()
        steps = body.const(np.float32(0.1))
        body.constants.append(helper.make_tensor("w", dtype, CODES.shape, CODES.reshape(-1)))
        weight = body.op("DequantizeLinear", "w", steps)
        return body.save(path, body.quantize(body.patches(body.quantize("x"), weight)))

    return save


def pieces(path: Path) -> Path:
    body = Body()
    x = start(body)
    y = body.quantize(body.op("Erf", body.quantize(body.op("Mul", x, body.const(np.float32(0.7))))))
    y = body.op("Mul", x, body.op("Add", y, body.const(np.float32(1))))
    return body.save(path, body.quantize(y), opset=17)


def norm(path: Path) -> Path:
    body = Body()
    x = start(body)
    centred = body.op("Sub", x, body.op("ReduceMean", x, axes=[-1]))
    square = body.op("ReduceMean", body.op("Pow", centred, body.const(np.float32(2))), axes=[-1])
    y = body.op("Div", centred, body.op("Sqrt", square))
    return body.save(path, body.quantize(y), opset=16)


def quick(path: Path) -> Path:
    body = Body()
    x = start(body)
    y = body.op("Sigmoid", body.op("Mul", x, body.const(np.float32(1.702))))
    return body.save(path, body.quantize(body.op("Mul", x, y)))


def softmax(path: Path) -> Path:
    body = Body()
    return body.save(path, body.op("Softmax", start(body)))


def wide(path: Path) -> Path:
    body = Body()
    x = body.patches(body.quantize("x", 1e-4, 0, "uint16"), body.codes(CODES))
    return body.save(path, body.quantize(x))


def uneven(path: Path) -> Path:
    body = Body()
    codes = CODES.astype(np.uint8)
    codes.reshape(-1)[:2] = 0, 255
    return body.save(
        path, body.quantize(body.patches(body.quantize("x"), body.codes(codes, zero=90)))
    )


def raw(path: Path) -> Path:
    body = Body()
    return body.save(path, body.quantize(body.patches("x", body.codes(CODES))))


def sums(path: Path) -> Path:
    body = Body()
    x = start(body)
    total = body.op("Add", x, body.op("Gelu", x))
    y = body.op("LayerNormalization", total, body.const(np.ones(WIDTH, np.float32)))
    return body.save(
        path, body.quantize(body.op("MatMul", y, body.codes(np.ones((WIDTH, 2), np.int8))))
    )


def contrib(path: Path) -> Path:
    body = Body()
    step, zero = body.const(np.float32(0.1)), body.const(np.int8(0))
    x = body.op("QuantizeLinear", start(body), step, zero, domain=MS)
    return body.save(path, body.op("DequantizeLinear", x, step, zero, domain=MS))


FILES = {
    "nothing in it is quantized": nothing,
    "a dynamic quantization": dynamic,
    "QOperator format": behind("QLinearSoftmax", domain=MS),
    "quantizers of onnxruntime's own domain": contrib,
    "control flow": control,
    "operators that onnxruntime's optimizer made": behind("FastGelu", domain=MS),
    "16-bit floats": half,
    "codes that are floats": typed(TensorProto.FLOAT8E4M3FN),
    "codes of 4 or 2 bits": typed(TensorProto.INT4),
    "an operator of opset 23": behind("RMSNormalization", opset=23),
    "Dropout": behind("Dropout"),
    "GELU in pieces": pieces,
    "LayerNorm in pieces": norm,
    "it ends in an operator behind the logits": softmax,
    "matrix products that read 16-bit codes": wide,
    "weights that are not symmetric": uneven,
    "the pictures have no quantizer": raw,
    "operators without a quantizer behind them": sums,
}


def test_every_cause_has_its_file() -> None:
    assert [any(c.says.startswith(s) for s in FILES) for c in CAUSES] == [True] * len(CAUSES)
    assert len(FILES) == len(CAUSES)


@pytest.mark.parametrize("says", FILES)
def test_a_known_cause_and_its_remedy(
    says: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = FILES[says](tmp_path / "model.onnx")
    cause = next(cause for cause in CAUSES if cause.says.startswith(says))
    if says.startswith("an operator of opset 23"):
        model = onnx.load(path)
        node = next(n for n in model.graph.node if n.op_type == "RMSNormalization")
        scale = onnx.numpy_helper.from_array(np.ones(WIDTH, np.float32), "gamma")
        model.graph.initializer.append(scale)
        node.input.append("gamma")
        onnx.save(model, path)
    with pytest.raises(VitqError) as error:
        import_model(path, MEANING)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert cause.says in line and cause.remedy in line
    assert len(line) <= LONGEST + len(str(path)) and "\n" not in line
    assert "lv" not in line.replace("solve", "")


@pytest.mark.parametrize("make", [plain, quick])
def test_a_file_that_is_taken_has_no_cause(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "plain.onnx")
    assert causes_of(Facts(read_onnx(path))) == []
    import_model(path, MEANING)


def test_counts_come_first_and_the_full_list_with_v(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = nothing(tmp_path / "m.onnx")
    caplog.set_level(logging.DEBUG, "vitq.compiler.foreign")
    with pytest.raises(VitqError) as error:
        import_model(path, MEANING)
    line = str(error.value)
    assert line.startswith(f"{path}: not integer-only, 41 operators would stay float: Gelu (x40), ")
    assert "QuantizeLinear" in line and line.endswith("all of them: vitq -v")
    listed = [record.getMessage() for record in caplog.records]
    assert sum("(Gelu): " in text for text in listed) == 40
    assert any("/block/Gelu_17 (Gelu)" in text for text in listed)


def test_an_unknown_operator_is_named_with_its_domain(tmp_path: Path) -> None:
    path = behind("Swirl", domain="my.own")(tmp_path / "m.onnx")
    with pytest.raises(VitqError, match=r"operators that are not supported: my\.own\.Swirl \(x1\)"):
        import_model(path, MEANING)
