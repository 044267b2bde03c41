import pytest
from tvm import relax

from tests.relay_passes.modules import module
from vitq.numerics.errors import VitqError
from vitq.relay_passes.check_integer_only import CheckIntegerOnly

INPUT = {"x": ((2, 4), "int8")}


def test_integer_layout_passes_unchanged():
    mod = module(INPUT, lambda b, x: b(relax.op.reshape(x, (8,))))
    assert CheckIntegerOnly()(mod) is mod


def test_all_float_operators_are_named_with_their_reasons():
    def body(b, x):
        y = b(relax.op.nn.relu(b.dq(x, 0.1)))
        return b.q(b(relax.op.tanh(y)), 0.1)

    check = CheckIntegerOnly({"lv3": "LowerSomething: no", "gone": "LowerOther: never"})
    with pytest.raises(VitqError) as error:
        check(module(INPUT, body))
    text = str(error.value)
    assert "relax.nn.relu (2, 4) float32" in text
    assert "relax.tanh (2, 4) float32" in text
    assert "lv3: LowerSomething: no" in text
    assert "never" not in text
    assert "relax.quantize" not in text  # it goes when the operators between do
    assert "\n" not in text


def test_quantizers_are_named_where_nothing_else_is_left():
    with pytest.raises(VitqError, match=r"relax.dequantize \(2, 4\)"):
        CheckIntegerOnly()(module(INPUT, lambda b, x: b.q(b.dq(x, 0.1), 0.2)))


def test_a_float_input_is_named():
    with pytest.raises(VitqError, match="input x is float32"):
        CheckIntegerOnly()(module({"x": ((2,), "float32")}, lambda b, x: b.q(x, 0.1)))


def test_an_unknown_integer_operator_is_named():
    mod = module(INPUT, lambda b, x: b(relax.op.add(x, x)))
    with pytest.raises(VitqError, match=r"relax.add \(2, 4\) int8"):
        CheckIntegerOnly()(mod)
