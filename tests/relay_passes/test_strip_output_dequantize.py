import numpy as np
import tvm
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module
from vitq.relay_passes.strip_output_dequantize import OutputInfo, StripOutputDequantize

INPUT = {"x": ((3, 4), "int16")}


def test_codes_are_returned_and_explained():
    before = module(INPUT, lambda b, x: b.dq(b(relax.op.reshape(x, (4, 3))), 0.25, 3))
    expected = module(INPUT, lambda b, x: b(relax.op.reshape(x, (4, 3))))
    step = StripOutputDequantize()
    assert_rewrites(step, before, expected)
    assert step.outputs == [OutputInfo((4, 3), "int16", 0.25, 3)]


def test_several_results():
    def body(b, x):
        y = b(relax.op.reshape(x, (12,)))
        return [b.real(y, 0.1), y]

    step = StripOutputDequantize()
    after = step(module(INPUT, body))
    tvm.ir.assert_structural_equal(
        after, module(INPUT, lambda b, x: [y := b(relax.op.reshape(x, (12,))), y])
    )
    assert [info.scale for info in step.outputs] == [0.1, 1.0]


def test_a_per_channel_result_stays():
    before = module(INPUT, lambda b, x: b.dq(x, np.arange(1, 5), axis=1))
    step = StripOutputDequantize()
    assert_declines(step, before)
    assert step.outputs[0].dtype == "float32"
