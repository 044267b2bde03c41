"""Twin ranges through the graph: fake quantization, reference and ONNX mean the same codes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.vits import VARIANTS, float_logits, lowest_cosine, pixels, quantized
from vitq.export.parity import compare, onnx_runner
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams
from vitq.numerics.twin import Twin
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.plan.twin_ranges import twin_of
from vitq.quantization.run.fake_quantize import GraphModule, simulate_node
from vitq.quantization.run.reference import IntegerReference


def gelus(graph: Graph) -> list[Node]:
    return [node for node in graph if node.op is OpKind.GELU]


ZERO = -112


def with_twins(shift: int, above: int | None) -> Graph:
    """Two ranges as wide as what one had, 16 negative codes, the split at or above zero."""
    graph = copy.deepcopy(quantized("class_token", "w8a8", "minmax"))
    for node in gelus(graph):
        assert node.out is not None
        reach = float(node.out.scale) * (node.out.qmax - int(node.out.zero_point))
        fine = max(0.17 / 16, reach / 200)
        split = ZERO + (above or 0)
        top = split + max(int(reach / fine) >> shift << shift, 1 << shift)
        node.out = QuantParams.per_tensor(fine, ZERO, -128, top)
        node.attrs["twin_shift"] = shift
        if above is not None:
            node.attrs["twin_split"] = split
    return graph


@pytest.mark.parametrize(("shift", "above"), [(3, None), (4, 8)])
def test_all_stages_agree(shift: int, above: int | None, tmp_path: Path) -> None:
    graph, pictures = with_twins(shift, above), pixels(8)
    assert {twin_of(node) for node in gelus(graph)} == {Twin(ZERO + (above or 0), shift)}
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS["class_token"](), pictures)) > 0.98
    module = GraphModule(graph, simulate=True)
    simulated = module(pictures).numpy()
    assert compare(simulated, integer).mean_cosine > 0.999
    save_onnx(to_onnx(graph, {}), tmp_path / "network.onnx")
    exported = onnx_runner(tmp_path / "network.onnx")(pictures.numpy())
    assert compare(simulated, exported).mean_cosine > 0.9999


def test_simulated_values_lie_on_the_grid() -> None:
    graph = with_twins(3, 8)
    for node in gelus(graph):
        assert node.out is not None
        scale = float(node.out.scale)
        values = torch.arange(-40, 2 * (node.out.qmax - ZERO) + 40) * scale / 2
        steps = np.unique(np.rint(simulate_node(node, values).numpy() / scale)).astype(int)
        top = 8 + ((node.out.qmax - ZERO - 8) >> 3 << 3)
        assert steps.tolist() == [*range(-16, 9), *range(16, top + 1, 8)]


def test_other_operators_have_no_twin_ranges() -> None:
    graph = with_twins(3, None)
    gelu = gelus(graph)[0]
    gelu.attrs["nonlinear"] = "ivit"
    with pytest.raises(VitqError, match="twin ranges are for the quantizer of a ShiftGELU"):
        twin_of(gelu)
    layer = next(node for node in graph if node.op is OpKind.LAYER_NORM)
    layer.attrs["twin_shift"] = 2
    with pytest.raises(VitqError, match="twin ranges are for"):
        IntegerReference(graph)(pixels(1).numpy())
