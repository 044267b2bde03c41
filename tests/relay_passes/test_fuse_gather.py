import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_same_results, module, ops
from tests.relay_passes.test_fuse_epilogue import ADD, linear
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.fuse_epilogue import FuseEpilogue
from vitq.relay_passes.fuse_gather import FuseGather

G, R, K, C = 2, 6, 8, 12
ROWS = np.array([5, 0, 3, 3])
ORDER = np.array([5, 0, 3, 1, 2, 4])
INPUT = {"x": ((G, R, K), "int8")}


def before_layer(rows):
    def body(b, x):
        moved = b(dialect.gather_rows(x, np.asarray(rows)))
        return b(linear(b(relax.op.reshape(moved, (G * len(rows), 1, K)))))

    return module(INPUT, body)


def behind_layer(rows, tail=None, inputs=INPUT):
    def body(b, x, *more):
        y = b(linear(b(relax.op.reshape(x, (G * R, K)))))
        moved = b(dialect.gather_rows(b(relax.op.reshape(y, (G, R, C))), np.asarray(rows)))
        return moved if tail is None else tail(b, y, moved, *more)

    return module(inputs, body)


@pytest.mark.parametrize("mod", [before_layer(ROWS), behind_layer(ORDER)], ids=["reads", "writes"])
def test_a_layer_reads_through_a_table(mod):
    after = FuseGather()(mod)
    assert_same_results(mod, after)
    assert [name for name in ops(after) if name != "reshape"] == [names.GATHER_LINEAR]


def test_three_layers_read_one_table():
    def body(b, x):
        moved = b(dialect.gather_rows(x, ROWS))
        return [b(linear(moved, seed=seed)) for seed in range(3)]

    mod = module(INPUT, body)
    after = FuseGather()(mod)
    assert_same_results(mod, after)
    assert ops(after).count(names.GATHER_LINEAR) == 3 and names.GATHER_ROWS not in ops(after)


def test_the_residual_is_added_where_rows_are_written():
    def tail(b, y, moved, residual):
        moved = b(relax.op.reshape(moved, (G, 2, 3, C)))
        return b(dialect.add(residual, moved, dialect.swap_summands(ADD), "int16"))

    inputs = {**INPUT, "residual": ((G, 2, 3, C), "int16")}
    mod = behind_layer(ORDER, tail, inputs)
    after = FuseEpilogue()(FuseGather()(mod))
    assert_same_results(mod, after)
    assert [name for name in ops(after) if name != "reshape"] == [names.GATHER_LINEAR_ADD]


@pytest.mark.parametrize(
    "mod",
    [
        before_layer([0, -1]),  # a row that is not there
        behind_layer([0, -1]),
        behind_layer([*ORDER, 0]),  # rows that would be multiplied twice
        behind_layer(ORDER, lambda b, y, moved: [y, moved]),  # another reader
    ],
)
def test_near_misses(mod):
    assert_declines(FuseGather(), mod)


def test_rows_of_another_width_are_not_the_layers():
    def body(b, x):
        moved = b(
            dialect.gather_rows(b(relax.op.reshape(x, (G, 2 * R, K // 2))), np.arange(11, -1, -1))
        )
        return b(linear(b(relax.op.reshape(moved, (G, R, K)))))

    assert_declines(FuseGather(), module(INPUT, body))
