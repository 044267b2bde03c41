from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.distribute_quantize import DistributeQuantize

INPUTS = {"x": ((2, 1, 4), "float32"), "y": ((2, 2, 4), "float32")}


def test_each_part_is_quantized():
    before = module(
        INPUTS, lambda b, x, y: b.q(b(relax.op.concat([x, y], axis=1)), 0.03, 5, "uint8")
    )
    expected = module(
        INPUTS,
        lambda b, x, y: b(
            relax.op.concat([b.q(x, 0.03, 5, "uint8"), b.q(y, 0.03, 5, "uint8")], axis=1)
        ),
    )
    assert_same_results(before, assert_rewrites(DistributeQuantize(), before, expected))


def test_a_per_channel_quantizer_stays():
    before = module(
        INPUTS, lambda b, x, y: b.q(b(relax.op.concat([x, y], axis=1)), [0.1, 0.2, 0.3, 0.4])
    )
    assert_declines(DistributeQuantize(), before, "per-channel")
