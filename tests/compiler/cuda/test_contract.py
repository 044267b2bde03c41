"""What a kit expects of each kernel: the contract's hashes, on inputs that can be drawn again."""

import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import Body, module
from vitq.compiler.codegen.contract import Operator, operators_of
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.gpu_kit.drawing import CASES, EXTREME, RANDOM, Activation, digest, draw
from vitq.compiler.kernels.emulation import EmulationError
from vitq.compiler.stages import emulate as emulating
from vitq.compiler.stages.emulate import emulate
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning.workload import task_text
from vitq.numerics.add import AddParams, int_add
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.errors import VitqError
from vitq.numerics.linear import LinearParams
from vitq.numerics.requantize import clamp_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import is_constant
from vitq.relay_passes.interpreter.interpreter import evaluate

FEATURES = get_target("cuda").features


def operators(artifact: Artifact, batch: int) -> dict[str, Operator]:
    """Of the embedded model, one of each task."""
    mod = import_model(artifact.onnx, Meaning(batch)).integer.mod
    found = operators_of(mod, FEATURES)
    return {task_text(operator.kernel): operator for operator in found}


def test_drawn_codes_reach_both_bounds_and_are_the_same_again() -> None:
    activations = [Activation((50, 40), "int8", -128, 127), Activation((300,), "uint8", 3, 9)]
    random, extreme = (draw(case, activations) for case in (RANDOM, EXTREME))
    assert [set(np.unique(a)) for a in extreme] == [{-128, 127}, {3, 9}]
    assert [len(np.unique(a)) for a in random] == [256, 7]
    assert [str(a.dtype) for a in (*random, *extreme)] == ["int8", "uint8"] * 2
    again = draw(RANDOM, activations)
    assert digest(random) == digest(again) != digest(extreme)
    again[1][-1] ^= 1
    assert digest(random) != digest(again)


def test_every_kernel_of_a_model_has_the_stored_hashes(artifact: Artifact) -> None:
    """The emulator of CUDA threads stands for the GPU."""
    tunable = [o for o in operators(artifact, 1).values() if o.kernel.is_tunable]
    names = {operator.kernel.name for operator in tunable}
    assert names >= {"patch_embed", "linear", "linear_add", "linear_gelu", "attention", "layernorm"}
    for operator in tunable:
        contract = operator.to_json()
        hashes = set()
        for case in CASES:
            drawn = operator.draw(case)
            assert digest(drawn) == contract["cases"][case]["inputs"]
            hashes.add(digest([emulate(operator, drawn, {})]))
        assert hashes == {contract["cases"][case]["output"] for case in CASES}
        assert len(hashes) == len(CASES), operator.kernel.name


def test_a_kernel_that_does_what_none_may_is_named(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    mod = import_model(artifact.onnx, Meaning(1)).integer.mod
    kernels = dict.fromkeys(operator.kernel for operator in operators_of(mod, FEATURES))
    schedules = [
        {"task": task_text(kernel), "name": kernel.name, "values": {}} for kernel in kernels
    ]

    def race(*arguments: object) -> IntArray:
        raise EmulationError("a race on shared memory")

    monkeypatch.setattr(emulating, "emulate", race)
    said = r"the kernel \w+ with \{\} fails: a race on shared memory; please report this"
    with pytest.raises(VitqError, match=said):
        next(emulating.compare_kernels(mod, get_target("cuda"), schedules))


def test_pictures_one_by_one_are_what_all_are_at_once(artifact: Artifact) -> None:
    for operator in operators(artifact, 3).values():
        drawn, expr = operator.draw(RANDOM), operator.expr
        rest = iter(drawn)
        args = [
            operand.value.numpy() if is_constant(operand) else next(rest)
            for operand in dialect.operands(expr)
        ]
        np.testing.assert_array_equal(operator.evaluate(drawn), evaluate(expr, args))


def sum_of_narrow_codes(b: Body, x: relax.Var, y: relax.Var) -> relax.Expr:
    """An addition that is proven for 4-bit codes, and overflows on the ends of int16."""
    narrow = [b(dialect.requantize(v, clamp_params(-8, 7), "int16")) for v in (x, y)]
    return b(dialect.add(*narrow, NARROW, "int16"))


NARROW = AddParams(20000, -20000, 2**15, -(2**15), 15, 0, -(2**15), 2**15 - 1)


def test_codes_that_the_contract_excludes_are_not_drawn() -> None:
    x = ((1, 3, 8), "int16")
    first, _, last = operators_of(module({"x": x, "y": x}, sum_of_narrow_codes), FEATURES)
    assert first.codes == ((-(2**15), 2**15 - 1), None, None, None), "all of its type"
    assert last.codes == ((-8, 7), (-8, 7), None)
    drawn: list[IntArray] = last.draw(EXTREME)
    assert set(np.unique(drawn[0])) == {-8, 7}
    np.testing.assert_array_equal(last.evaluate(drawn), int_add(*drawn, NARROW))


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_without_pictures_are_one_piece(rows: int) -> None:
    """As of the head, which reads one row of each picture."""
    weight, zeros = np.arange(-6, 6, dtype=np.int8).reshape(3, 4), np.zeros(3, np.int32)
    gemm = LinearParams(weight, zeros, to_dyadic(np.ones(3)), zeros, -(2**15), 2**15 - 1)
    mod = module({"x": ((rows, 4), "int8")}, lambda b, x: b(dialect.linear(x, gemm, "int16")))
    (operator,) = operators_of(mod, FEATURES)
    (x,) = operator.draw(RANDOM)
    expected = x.astype(np.int64) @ weight.T.astype(np.int64)
    np.testing.assert_array_equal(operator.evaluate([x]), np.clip(expected, -(2**15), 2**15 - 1))
