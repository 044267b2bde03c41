import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.simplify_layout import SimplifyLayout

INPUT = {"x": ((2, 6, 5), "int8")}


def apply(*steps):
    def body(b, x):
        for kind, value in steps:
            x = b(relax.op.reshape(x, value) if kind == "r" else relax.op.permute_dims(x, value))
        return b(relax.op.concat([x, x], axis=0))

    return module(INPUT, body)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([("r", (2, 30)), ("r", (2, 5, 6))], [("r", (2, 5, 6))]),
        ([("r", (60,)), ("r", (2, 6, 5))], []),
        ([("p", [0, 2, 1]), ("p", [0, 2, 1])], []),
        ([("p", [1, 2, 0]), ("p", [0, 2, 1])], [("p", [1, 0, 2])]),
        ([("r", (2, 1, 6, 5)), ("p", [1, 0, 2, 3])], [("r", (1, 2, 6, 5))]),
        (  # tokens to a grid and back, by way of the other order of axes
            [("r", (2, 2, 3, 5)), ("p", [0, 3, 1, 2]), ("r", (2, 5, 6)), ("p", [0, 2, 1])],
            [],
        ),
    ],
)
def test_chains_get_shorter(before, after):
    mod = apply(*before)
    assert_same_results(mod, assert_rewrites(SimplifyLayout(), mod, apply(*after)))


@pytest.mark.parametrize(
    "chain", [[("p", [0, 2, 1]), ("r", (2, 6, 5))], [("p", [2, 0, 1])], [("r", (3, 4, 5))]]
)
def test_chains_that_do_something_stay(chain):
    assert_declines(SimplifyLayout(), apply(*chain))
