"""A range narrower than int16 is a clip that onnxruntime has, and becomes bounds again."""

from pathlib import Path

import numpy as np
import torch

from tests.quantization.test_gates import gated
from tests.quantization.vits import MEAN, STD, pixels
from vitq.compiler.codegen.importing import Meaning, import_model, interpreter_runner
from vitq.export.parity import run_onnx
from vitq.export.qdq import save_onnx, to_onnx
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference


def test_twelve_bits_run_in_onnxruntime_and_are_imported(tmp_path: Path) -> None:
    def body(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.both(self.norm(x)).chunk(2, -1)
        return x + self.down(torch.nn.functional.silu(gate) * up)

    x = pixels(4)
    graph = quantize_graph(
        gated(body, spread=False), x, Recipe.parse("w8a8"), get_method("repq"), MEAN, STD
    )
    (silu,) = (node for node in graph if node.op is OpKind.POINTWISE)
    read = graph.operand(silu)
    assert read.out is not None
    assert (read.out.qmax - read.out.qmin).bit_length() == 12 and read.out.dtype == np.int16
    read.out.scale.setflags(write=True)
    read.out.scale[...] /= 8  # what is beyond the bounds matters
    path = tmp_path / "model.onnx"
    save_onnx(to_onnx(graph, {"nonlinear": "vitq"}), path)
    simulated = GraphModule(graph, simulate=True)(x).numpy()
    np.testing.assert_allclose(run_onnx(path, x.numpy()), simulated, rtol=0, atol=1e-4)
    imported = import_model(path, Meaning(4, MEAN, STD, None))
    found = interpreter_runner(imported)(x.numpy())
    np.testing.assert_array_equal(found, IntegerReference(graph)(x.numpy()))
