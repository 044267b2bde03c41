"""Each operator by its record: interpreter, ranges and proof agree with each other."""

from typing import Any

import numpy as np
import pytest

from tests.relay_passes.modules import module
from tests.samples import MAKERS, Sample
from vitq.relay_passes.check_accumulators import CheckAccumulators
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import Operator
from vitq.relay_passes.dialect.registry import OPERATORS
from vitq.relay_passes.expressions import MAIN, bindings_of, constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.reading.ranges import KnownOperands, Ranges, ranges_of


def activations(record: Operator, sample: Sample) -> dict[str, Any]:
    pairs = zip(record.operands, sample.arrays, strict=True)
    return {name: array for name, array in pairs if not record.must_be_constant(name)}


def call_of(record: Operator, sample: Sample) -> Any:
    """A module of one call, its activations the inputs."""

    def body(b: Any, *tensors: Any) -> Any:
        inputs = dict(zip(activations(record, sample), tensors, strict=True))
        pairs = zip(record.operands, sample.arrays, strict=True)
        operands = [inputs[name] if name in inputs else constant(a) for name, a in pairs]
        if record.params is None:
            return b(dialect.make(record.name, operands, dtype=sample.dtype))
        return b(dialect.make(record.name, operands[:-1], sample.arrays[-1], sample.dtype))

    shapes = {
        name: (array.shape, str(array.dtype)) for name, array in activations(record, sample).items()
    }
    return module(shapes, body)


def test_every_record_has_a_sample():
    assert set(MAKERS) == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_interpreter_the_ranges_and_the_proof_agree(name):
    record, sample = OPERATORS[name], MAKERS[name]()
    mod = call_of(record, sample)
    (found,) = interpret(mod, list(activations(record, sample).values()))
    expected = record.run(sample.arrays)
    assert found.dtype == sample.dtype
    np.testing.assert_array_equal(found, expected)
    assert found.shape == record.shape(*(array.shape for array in sample.arrays))
    low, high = ranges_of(mod).of(bindings_of(mod[MAIN])[0].var)
    assert low <= expected.min() and expected.max() <= high
    info = np.iinfo(sample.dtype)
    assert info.min <= low and high <= info.max
    check = CheckAccumulators()
    check(mod)
    assert check.bounds


@pytest.mark.parametrize("name", [n for n, record in OPERATORS.items() if record.is_pointwise])
def test_a_pointwise_operator_looks_at_one_code_at_a_time(name):
    sample = MAKERS[name]()
    x, params = sample.arrays
    order = np.random.default_rng(1).permutation(x.size)
    moved = OPERATORS[name].run([x.reshape(-1)[order], params])
    np.testing.assert_array_equal(moved, OPERATORS[name].run([x, params]).reshape(-1)[order])


ACTIVATIONS = {"x", "a", "b", "c", "d", "residual", "codes", "value", "pixels", "qkv"}
"""Operands that a run brings; every other one is a constant of the model."""


@pytest.mark.parametrize("name", OPERATORS)
def test_all_but_activations_are_constants(name):
    record = OPERATORS[name]
    given = {operand for operand in record.operands if not record.must_be_constant(operand)}
    assert given == ACTIVATIONS.intersection(record.operands) and given


def test_gelu_alone_is_pointwise():
    assert [name for name, record in OPERATORS.items() if record.is_pointwise] == [names.SHIFTGELU]


def test_a_call_of_too_few_operands_is_not_read():
    record, sample = OPERATORS[names.ADD], MAKERS[names.ADD]()
    short = [constant(array) for array in sample.arrays[:-1]]
    call = dialect.packed(record.name, short, sample.arrays[0].shape, sample.dtype)
    with pytest.raises(ValueError, match="zip"):
        KnownOperands(call, Ranges())
