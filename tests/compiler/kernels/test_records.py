"""Each operator's kernels against its record, here and on the emulated GPU."""

import numpy as np
import pytest

from tests.compiler.kernels.util import GPU, VNNI, run_lowered, tensor_type
from tests.samples import MAKERS, Sample
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.kernels.cpu import pointwise as cpu
from vitq.compiler.kernels.cuda import pointwise as cuda
from vitq.compiler.kernels.kernel import KernelCall
from vitq.compiler.kernels.pointwise import code_table, kernel_name
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import Features
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import Operator
from vitq.relay_passes.dialect.registry import OPERATORS

BOTH = pytest.mark.parametrize("features", [VNNI, GPU], ids=["cpu", "cuda"])
POINTWISE = [name for name, record in OPERATORS.items() if record.is_pointwise]


def result_type(record: Operator, sample: Sample) -> TensorType:
    return TensorType(record.shape(*(a.shape for a in sample.arrays)), sample.dtype)


def check(call: KernelCall, record: Operator, sample: Sample, features: Features) -> None:
    found = run_lowered(call, sample.arrays, features)
    np.testing.assert_array_equal(found, record.run(sample.arrays))


@BOTH
@pytest.mark.parametrize("name", OPERATORS)
def test_a_kernel_computes_its_record(name: str, features: Features) -> None:
    record, sample = OPERATORS[name], MAKERS[name]()
    pairs = enumerate(zip(record.operands, sample.arrays, strict=True))
    constants = {i: array for i, (o, array) in pairs if record.must_be_constant(o)}
    types = [tensor_type(array) for array in sample.arrays]
    call = lower_op(name, types, constants, result_type(record, sample), features)
    assert call.kernel.name == kernel_name(record)
    check(call, record, sample, features)


@BOTH
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("name", POINTWISE)
def test_a_table_can_stand_for_a_pointwise_operator(
    name: str, dtype: str, features: Features
) -> None:
    """Also where an operator has a kernel of its own; all codes of each type."""
    record, params = OPERATORS[name], MAKERS[name]().arrays[-1]
    info = np.iinfo(dtype)
    x = np.arange(info.min, info.max + 1).astype(dtype).reshape(2, -1)
    sample = Sample((x, params))
    lower = cuda.lower_pointwise if features is GPU else cpu.lower_pointwise
    types = [tensor_type(array) for array in sample.arrays]
    call = lower(record, types, {1: params}, result_type(record, sample), features)
    check(call, record, sample, features)


def test_accumulators_are_too_wide_for_a_table() -> None:
    record, params = OPERATORS[names.SHIFTGELU], MAKERS[names.SHIFTGELU]().arrays[-1]
    with pytest.raises(VitqError, match="int32 codes are too many for a table"):
        code_table(record, TensorType((4,), "int32"), params, TensorType((4,), "int8"))
