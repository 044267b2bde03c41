"""The tables of kernels against the records of the operators."""

import pytest

from vitq.compiler.kernels.cpu import lowering as cpu
from vitq.compiler.kernels.cuda import lowering as cuda
from vitq.relay_passes.dialect.registry import OPERATORS


@pytest.mark.parametrize("family", [cpu, cuda], ids=["cpu", "cuda"])
def test_every_operator_has_a_kernel_and_every_kernel_an_operator(family):
    assert set(family.supported_ops()) == set(OPERATORS)
