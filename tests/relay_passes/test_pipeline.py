"""The whole pipeline on a tiny QDQ vision transformer, against plain integers."""

import numpy as np
from tvm.relax.frontend.onnx import from_onnx

from relay_passes.interpreter import interpret
from relay_passes.pipeline import PassOptions, integerize
from tests.relay_passes import qdq_vit


def test_x():
    w = qdq_vit.make_weights()
    m = qdq_vit.build(w)
    mod = from_onnx(m, shape_dict={"pixels": (2, 3, 8, 8)})
    from pathlib import Path

    r = integerize(mod, PassOptions(), Path("/tmp/rp_dump"))
    px = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    got = interpret(r.mod, [px])[0]
    ref = qdq_vit.reference(w, px)
    fl = interpret(mod, [px])[0]
    print(r.mod.script())
    print(r.report.declines)
    print(got, ref, fl / 2e-4)
    np.testing.assert_array_equal(got, ref)
