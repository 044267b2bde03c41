"""The graph in PyTorch, in float and simulated."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.quantization.vits import float_logits, normalized, pixels, quantized, traced, vit
from vitq.numerics.pointwise import CLAMPS
from vitq.numerics.qparams import PerAxis, QuantParams, dequantize, quantize
from vitq.quantization.graph.functions import FUNCTIONS, WITH_PARAMETER
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.run.fake_quantize import GraphModule, compute_node, fake_quantize


@pytest.mark.parametrize(
    "qparams",
    [
        QuantParams.per_tensor(0.07, 3, -128, 127),
        QuantParams.per_tensor(0.5, 0, -7, 7),
        QuantParams.per_tensor(0.001, 0, -(2**15), 2**15 - 1),
        QuantParams(
            np.array([0.1, 0.5, 2.0], np.float32), np.array([0, -4, 3]), -128, 127, PerAxis(1)
        ),
    ],
)
def test_fake_quantize_equals_the_contract(qparams: QuantParams) -> None:
    x = np.random.RandomState(0).uniform(-20, 20, (50, 3, 7)).astype(np.float32)
    x[0, 0, :4] = [0.25, -0.25, 0.75, 1.25]
    expected = dequantize(quantize(x, qparams), qparams)
    np.testing.assert_array_equal(fake_quantize(torch.from_numpy(x), qparams).numpy(), expected)


def test_halves_go_to_even() -> None:
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    real = fake_quantize(x, QuantParams.per_tensor(1, 0, -128, 127))
    np.testing.assert_array_equal(real.numpy(), [-2, -2, 0, 0, 2, 2])


def test_uint8_pictures_are_divided_by_255() -> None:
    module, pictures = GraphModule(traced("class_token")), pixels(2)
    expected = module(pictures.float() / 255)
    np.testing.assert_array_equal(module(pictures).numpy(), expected.numpy())


def test_simulation_is_near_the_float_model_and_not_it() -> None:
    pictures = pixels(4)
    simulated = GraphModule(quantized("class_token"), simulate=True)(pictures).numpy()
    error = np.abs(simulated - float_logits(vit(), pictures)).max()
    assert 1e-4 < error < 0.2


def test_results_are_codes_times_scale(digits_graph: Graph) -> None:
    out = digits_graph.nodes[digits_graph.output].out
    assert out is not None
    simulated = GraphModule(digits_graph, simulate=True)(pixels(2)).numpy()
    np.testing.assert_allclose(simulated / out.scale, np.rint(simulated / out.scale), atol=1e-2)


def test_the_observer_sees_each_node_once_before_its_quantizer() -> None:
    graph = quantized("class_token")
    seen: list[str] = []
    GraphModule(graph, simulate=True, observer=lambda node, x: seen.append(node.name))(pixels(1))
    assert seen == list(graph.nodes)


def test_parameters_move_with_the_module() -> None:
    """As to a device: `torch.nn.Module.to` reaches the graph's tensors."""
    x = normalized(pixels(2)).double()
    module = GraphModule(traced("class_token")).to(torch.float64)
    assert module(x).dtype == torch.float64


def test_gradients_reach_the_pictures() -> None:
    """Against a difference quotient, in float64."""
    module = GraphModule(traced("class_token")).to(torch.float64)
    x = normalized(pixels(1)).double().requires_grad_()
    module.differentiable(x)[0, 3].backward()
    assert x.grad is not None
    step = torch.zeros_like(x)
    step[0, 1, 5, 7] = 1e-4
    with torch.no_grad():
        difference = (module(x + step) - module(x - step))[0, 3] / 2e-4
    assert float(x.grad[0, 1, 5, 7]) == pytest.approx(float(difference), rel=1e-4)


X = torch.linspace(-3, 3, 24).reshape(1, 4, 6)
SPELLED = {
    OpKind.MAX: ({"axis": 1}, X.amax(1)),
    OpKind.MULTIPLY: ({}, X * X),
    OpKind.RMS_NORM: ({"eps": 0.5}, functional.rms_norm(X, (6,), torch.arange(6.0), 0.5)),
    OpKind.OFFSET: ({}, X + torch.arange(6.0)),
    OpKind.TAKE: ({"axis": 2, "indices": [5, 0, 0]}, X[:, :, [5, 0, 0]]),
    OpKind.PAD: ({"pads": [[0, 0], [1, 0], [0, 2]]}, functional.pad(X, (0, 2, 1, 0))),
}


@pytest.mark.parametrize("op", SPELLED)
def test_operators_equal_torch(op: OpKind) -> None:
    attrs, expected = SPELLED[op]
    node = Node("y", op, ("x", "x"), tuple(expected.shape), 0, attrs=attrs)
    params = {"gamma": torch.arange(6.0), "value": torch.arange(6.0)}
    found = compute_node(node, [X, X], params, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*FUNCTIONS, *WITH_PARAMETER, *CLAMPS])
def test_pointwise_functions_equal_torch(name: str) -> None:
    own = getattr(functional, name.replace("log_s", "logs"), None) or getattr(torch, name, None)
    parameter = 0.3 if name in WITH_PARAMETER else None
    node = Node("y", OpKind.POINTWISE, ("x",), tuple(X.shape), 0)
    node.attrs = {"function": name} | ({} if parameter is None else {"parameter": parameter})
    found = compute_node(node, [X], {}, 1)
    if name == "quick_gelu":
        expected = X / (1 + torch.exp(-1.702 * X))
    else:
        assert own is not None
        expected = own(X) if parameter is None else own(X, parameter)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
