"""What the emulated GPU must refuse of products by ``wgmma`` that nobody has waited for."""

from typing import Any

import numpy as np
import pytest

from tests.compiler.kernels.test_gemm import linear_call
from tests.compiler.kernels.util import random_codes, run_lowered, tensor_type
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.kernels import building
from vitq.compiler.kernels.cpu.lowering import TensorType
from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.emulator.emulator import EmulationError
from vitq.compiler.kernels.cuda.tile import Tile
from vitq.compiler.target.gpus import ARCHITECTURES
from vitq.relay_passes.dialect import names

HOPPER = ARCHITECTURES["sm_90"]


def differences(flight: int) -> int:
    """How many integers of a linear layer with six turns are wrong."""
    building._build.cache_clear()
    rng = np.random.default_rng(0)
    operands, expected = linear_call(rng, random_codes(rng, "int8", (70, 384)), 64, "int8", 1e-3)
    constants, out = {i: operands[i] for i in range(1, 7)}, TensorType(expected.shape, "int8")
    call = lower_op(names.LINEAR, [tensor_type(o) for o in operands], constants, out, HOPPER)
    values = vars(Tile(16, 64, 4, 1, 1, 64, 4, 1, flight))
    return int(np.count_nonzero(run_lowered(call, operands, HOPPER, values) != expected))


@pytest.mark.parametrize("flight", [0, 1])
def test_sums_that_were_not_waited_for_are_noise(
    flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert differences(flight) == 0
    monkeypatch.setattr(intrinsics, "wgmma_wait", lambda acc, count: None)
    assert differences(flight) > 0


def test_a_stage_that_is_still_multiplied_may_not_be_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One stage further ahead than products in flight allow."""
    ahead: Any = Tile.ahead.fget
    monkeypatch.setattr(Tile, "ahead", property(lambda tile: ahead(tile) + tile.flight))
    assert differences(0) == 0
    with pytest.raises(EmulationError, match="a race"):
        differences(1)


def test_a_stage_whose_products_nobody_waits_for_may_not_be_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intrinsics, "wgmma_let", lambda pending: None)
    try:
        assert differences(1) > 0
    except EmulationError as error:
        assert "a race" in str(error)
