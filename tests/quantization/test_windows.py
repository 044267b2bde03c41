"""Methods on a Swin: windows multiply the batch, and roll and partition lie before the layers."""

import copy
import functools

import numpy as np
import pytest
import torch

from tests.quantization.test_reparameterize import hand_made, ranges
from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import calibration_images
from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.normalization import _of_any_batch, fold_normalization
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.ranges.importance import measure_importance, spread
from vitq.quantization.ranges.reparameterize import reparameterize_norm
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference

SHAPE = (3, 32, 32)


@functools.cache
def float_graph() -> Graph:
    """Two stages with windows (4, then 1), each a block, and patch merging between them."""
    torch.manual_seed(0)
    model = import_timm().models.SwinTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=32, depths=(1, 1), num_heads=(2, 2),
        window_size=4, mlp_ratio=2, drop_path_rate=0.0,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias_table"):
                value.normal_()
            elif name.endswith("norm1.weight") or name.endswith("norm.weight"):
                value.mul_(torch.rand_like(value) * 4 + 0.1)
    return trace(model, SHAPE)


def graph() -> Graph:
    return copy.deepcopy(float_graph())


def pixels(count: int) -> torch.Tensor:
    return torch.from_numpy(np.array(calibration_images(count)))


def quantized(recipe: str, method: str) -> Graph:
    return quantize_graph(graph(), pixels(8), Recipe.parse(recipe), get_method(method), MEAN, STD)


def test_padded_parts_of_a_picture_share_what_the_normalization_leaves() -> None:
    """TNT's patches are on the batch's axis before the first convolution, which is padded."""
    torch.manual_seed(0)
    model = import_timm().create_model("tnt_s_patch16_224", depth=1, img_size=32, num_classes=4)
    x = pixels(3)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.4, 0.5, 0.6), STD))
    with torch.inference_mode():
        wanted = model.eval()((x / 255 - mean) / std).numpy()
    made = trace(model, SHAPE)
    fold_normalization(made, (0.4, 0.5, 0.6), STD)
    np.testing.assert_allclose(GraphModule(made)(x).numpy(), wanted, rtol=0, atol=1e-4)


def test_parts_that_are_padded_differently_are_refused() -> None:
    layer = Node("first", OpKind.LINEAR, (), (4, 2, 3), 0)
    value = np.ones((4, 2, 3))
    assert _of_any_batch(layer, value).shape == (1, 2, 3)
    value[2, 0, 0] = 2
    with pytest.raises(VitqError, match="first reads parts of the picture that are padded diff"):
        _of_any_batch(layer, value)


@pytest.mark.parametrize("method", ["minmax", "repq", "ptq4vit", "best"])
def test_methods_reach_windows(method: str) -> None:
    exact, found = graph(), quantized("w8a8", method)
    x = pixels(4)
    reference = IntegerReference(found)
    logits = reference(x.numpy()) * reference.output_scale
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    wanted = GraphModule(exact)((x / 255 - mean) / std).numpy()
    assert float((logits * wanted).sum() / np.sqrt((logits**2).sum() * (wanted**2).sum())) > 0.999


def test_norms_before_windows_and_merging_are_reparameterized() -> None:
    before, after = graph(), quantized("w8a8", "repq")
    norms = [node.name for node in before if node.op is OpKind.LAYER_NORM]
    changed = [
        name
        for name in norms
        if not np.array_equal(
            before.real(before.nodes[name], "gamma"), after.real(after.nodes[name], "gamma")
        )
    ]
    kept = sorted(set(norms) - set(changed))
    # the embedding's norm is a residual stream, and the mean reads the last one
    assert kept == sorted([norms[0], norms[-1]]) and len(changed) == 5
    (reduction,) = (
        node for node in after if node.op is OpKind.LINEAR and "reduction" in node.module
    )
    assert np.abs(after.real(reduction, "bias")).max() > 0  # it had none: one is made


def test_importance_of_windows_is_of_the_picture() -> None:
    exact = graph()
    x = pixels(3)
    node = next(node for node in exact if node.op is OpKind.SOFTMAX)
    assert node.shape[0] == 4
    found = measure_importance(exact, {node.name}, x)[node.name]
    assert found.shape == node.shape
    value = torch.zeros(node.shape_at(3))
    by_picture = spread(found, value, 0).reshape(3, *node.shape)
    assert all(torch.equal(one, found) for one in by_picture)


def between(*nodes: Node) -> tuple[Graph, Node]:
    """LayerNorm -> nodes -> linear, on (1, 4, 6)."""
    made, norm = hand_made(0)
    for node in (made.nodes["x"], norm):
        node.shape = (1, 4, 6)
    fc = made.nodes.pop("fc")
    made.nodes |= {node.name: node for node in nodes}
    fc.inputs, fc.shape = (nodes[-1].name,), (*nodes[-1].shape[:-1], 4)
    made.nodes["fc"] = fc
    return made, norm


MOVED = {
    "rows in another order": (
        Node("cut", OpKind.RESHAPE, ("norm",), (1, 2, 2, 6), 0),
        Node("moved", OpKind.PERMUTE, ("cut",), (1, 2, 2, 6), 0, {}, {"axes": [0, 2, 1, 3]}),
    ),
    "rolled": (
        Node(
            "rolled", OpKind.TAKE, ("norm",), (1, 4, 6), 0, {}, {"axis": 1, "indices": [1, 2, 3, 0]}
        ),
    ),
}
MIXED = {
    "channels taken": (
        Node(
            "taken",
            OpKind.TAKE,
            ("norm",),
            (1, 4, 6),
            0,
            {},
            {"axis": 2, "indices": [5, 4, 3, 2, 1, 0]},
        ),
    ),
    "zeros between": (
        Node("padded", OpKind.PAD, ("norm",), (1, 6, 6), 0, {}, {"pads": [[0, 0], [0, 2], [0, 0]]}),
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_whole_rows_may_move(name: str) -> None:
    made, norm = between(*copy.deepcopy(MOVED[name]))
    x = torch.from_numpy(np.random.RandomState(0).randn(5, 4, 6).astype(np.float32))
    before = GraphModule(made)(x).numpy()
    assert reparameterize_norm(made, norm, *ranges(made), 8) is not None
    np.testing.assert_allclose(GraphModule(made)(x).numpy(), before, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", MIXED)
def test_channels_that_move_and_zeros_decline(name: str) -> None:
    made, norm = between(*copy.deepcopy(MIXED[name]))
    before = copy.deepcopy(made.tensors)
    assert reparameterize_norm(made, norm, *ranges(made), 8) is None
    assert all(np.array_equal(made.tensors[key], value) for key, value in before.items())
