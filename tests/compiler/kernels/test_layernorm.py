"""LayerNorm against `numerics`."""

from math import isqrt

import numpy as np
import pytest
import tvm

from tests.compiler.kernels.util import (
    CPU_FEATURES,
    ENTRIES,
    FEATURES,
    GPU,
    compile_function,
    run_op,
)
from vitq.compiler.kernels.building import build
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.compiler.kernels.cpu.roots import emit_reciprocals
from vitq.compiler.target import host
from vitq.compiler.target.features import Features
from vitq.numerics.int_layernorm import int_layernorm, layernorm_params
from vitq.numerics.int_rmsnorm import int_rmsnorm, rmsnorm_params
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names

FEATURE_IDS = pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)


def check_layernorm(
    channels: int,
    dtype: str,
    bounds: tuple[int, int],
    features: Features,
    draw: np.random.Generator | dict[str, int] | None = None,
    centred: bool = True,
) -> None:
    """Rows of all spreads, constant rows, extreme rows, negative and dead channels."""
    rng = np.random.default_rng(channels)
    info = np.iinfo(dtype)
    spreads = np.array([0, 0.4, 1, 3, 20, 300, 3000, 30000, 1e9])[:, None]
    x = rng.normal(size=(2, 9, channels)) * spreads + np.array([[[0]], [[50]]])
    x = x.clip(info.min, info.max).astype(dtype)
    x[0, 0], x[1, 0] = info.min, info.max
    x[0, 1], x[0, 1, 0] = 0, info.max
    x[1, 1], x[1, 1, ::2] = info.max, info.min
    gamma, beta = rng.normal(size=channels), rng.normal(size=channels)
    gamma[0] = 0
    out = QuantParams(np.float32(0.03), np.int32(7), *bounds)
    name, integers, p = (
        names.LAYERNORM,
        int_layernorm,
        layernorm_params(2e-3, 1e-6, gamma, beta, out),
    )
    if not centred:
        name, integers, p = names.RMSNORM, int_rmsnorm, rmsnorm_params(2e-3, 1e-6, gamma, out)
    operands = [x, p.multiplier, p.addend, p.scalars()]
    result = run_op(name, operands, TensorType(x.shape, "int8"), features, draw=draw)
    np.testing.assert_array_equal(result, integers(x, p))


@FEATURE_IDS
@pytest.mark.parametrize("channels", [192, 48, 10, 33])
@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_layernorm(channels: int, dtype: str, features: CpuFeatures) -> None:
    """Channels in whole registers, with a rest, and too few."""
    check_layernorm(channels, dtype, (-128, 127), features)


@FEATURE_IDS
@pytest.mark.parametrize("channels", [64, 33])
def test_rmsnorm(channels: int, features: CpuFeatures) -> None:
    """Rows of one code among them, in whole registers and with a rest."""
    check_layernorm(channels, "int16", (-128, 127), features, centred=False)


@FEATURE_IDS
@pytest.mark.parametrize("seed", range(3))
def test_layernorm_schedules(seed: int, features: CpuFeatures) -> None:
    """No schedule changes a bit; bounds within int8's."""
    check_layernorm(64 + 33 * seed, "int16", (-100, 90), features, np.random.default_rng(seed))


@pytest.mark.parametrize("lanes", [8, 16, 32])
@pytest.mark.parametrize("channels", [192, 72, 33])
def test_layernorm_of_several_rows_in_a_warp(channels: int, lanes: int) -> None:
    """Eighteen rows, of which the last block has some too few."""
    check_layernorm(channels, "int16", (-128, 127), GPU, {"warps": 2, "lanes": lanes})


@pytest.mark.parametrize("features", CPU_FEATURES, ids=lambda f: f.dot)
def test_reciprocals(features: CpuFeatures) -> None:
    """Squares and their neighbours, both ends, and random radicands."""
    rng = np.random.default_rng(0)
    roots = rng.integers(2**30 + 1, 2**31 - 1, 1000)
    random = rng.integers(2**60, 2**62, 4088, endpoint=False)
    ends = [
        2**60,
        2**60 + 1,
        2**60 + 2**31,
        2**62 - 1,
        2**62 - 2,
        (2**31 - 1) ** 2,
        2**61,
        2**61 - 1,
    ]
    n = np.concatenate([roots**2, roots**2 - 1, roots**2 + 1, roots**2 + 2 * roots, random, ends])
    n = n[: len(n) // 8 * 8].reshape(-1, 8)
    types = TensorType((8,), "int64"), TensorType((8,), "int32")
    func = build("reciprocals", types[:1], types[1], lambda x, y: emit_reciprocals(x, y, 8))
    function = compile_function(func, features)
    emulated = host.missing_flags(ENTRIES[features], host.host_flags())
    for row in n[:: -16 if emulated else -1]:  # an emulated call takes 30 ms; the ends are last
        result = tvm.runtime.tensor(np.zeros(8, np.int32))
        function(tvm.runtime.tensor(row), result)
        expected = [(2**61 - 1) // isqrt(int(v)) for v in row]
        np.testing.assert_array_equal(result.numpy(), expected)
