"""The records of the operators: complete, consistent, and the only place of their facts."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import relax

from vitq.numerics.add import AddParams
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import PARAMS, Operator
from vitq.relay_passes.dialect.registry import OPERATORS
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import EVALUATORS

ROOT = Path(__file__).resolve().parents[2]
BETWEEN_PASSES = {names.QUANTIZE, names.DEQUANTIZE}
NAMES = {
    value
    for key, value in vars(names).items()
    if key.isupper() and key != "PREFIX" and isinstance(value, str)
}
ADD = AddParams(0, 0, 1, 1, 1, 0, -128, 127)


def tensor(name: str, shape: tuple[int, ...], dtype: str) -> Any:
    return relax.Var(name, relax.TensorType(list(shape), dtype))


def shape(kind: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in kind.shape.values)


def test_every_name_has_a_record():
    assert set(OPERATORS) == NAMES - BETWEEN_PASSES
    assert set(OPERATORS) <= set(EVALUATORS)


def test_names_are_spelled_in_one_file():
    any_name = "|".join(map(re.escape, NAMES))
    literal = re.compile(f"""(?<![rf])["']({any_name})["']""")
    folders = ("compiler", "examples", "export", "models", "numerics", "quantization")
    folders += ("relay_passes", "tests", "vitq/api")
    guilty = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for found in literal.finditer(path.read_text())
    ]
    assert guilty == []


def test_a_record_cannot_contradict_itself():
    facts = {"evaluate": np.negative, "prove": lambda o, p: []}
    with pytest.raises(VitqError, match="parameters without the operand"):
        Operator(name="x", operands=("x",), params=AddParams, **facts)
    with pytest.raises(VitqError, match="vice versa"):
        Operator(name="x", operands=("x", PARAMS), **facts)
    with pytest.raises(VitqError, match="that are no operands"):
        Operator(name="x", operands=("x",), constants=("weight",), **facts)


def test_calls_take_shape_and_type_from_the_record():
    a, b = tensor("a", (2, 5, 8), "int8"), tensor("b", (2, 7, 8), "int8")
    call = dialect.make(names.MATMUL, [a, b], (3, 4))
    (found,) = call.ty_args
    assert (shape(found), found.dtype) == ((2, 5, 7), "int32")
    assert dialect.params_of(call) == (3, 4)
    pixels = tensor("x", (2, 3, 8, 12), "uint8")
    weight, zeros = constant(np.zeros((6, 3, 4, 4), np.int8)), constant(np.zeros(6, np.int32))
    call = dialect.make(names.PATCH_EMBED, [pixels, weight, *[zeros] * 4], (-8, 7), "int8")
    assert shape(call.ty_args[0]) == (2, 6, 6)


def test_calls_of_other_operands_are_refused():
    x = tensor("x", (2, 8), "int8")
    with pytest.raises(VitqError, match=r"add takes a, b, params: 2 operands given"):
        dialect.make(names.ADD, [x], ADD, "int8")
    with pytest.raises(VitqError, match=r"requantize: its multiplier must be constant"):
        dialect.make(names.REQUANTIZE, [x, x, x], (0, 0, -8, 7), "int8")
