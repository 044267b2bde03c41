"""How blocks share a multiprocessor."""

import pytest

from vitq.compiler.kernels.cuda.emit import RESIDENT, ceil_div, spread
from vitq.compiler.kernels.cuda.tile import RESERVED
from vitq.compiler.target.gpus import ARCHITECTURES

SHARED_OF_A_MULTIPROCESSOR = 228 * 1024
HOPPER = ARCHITECTURES["sm_90"]


@pytest.mark.parametrize("blocks", [(1,), (132,), (133,), (25, 9), (4, 12, 8)])
@pytest.mark.parametrize("threads", [32, 64, 128])
def test_no_multiprocessor_takes_more_than_its_share(blocks: tuple[int, ...], threads: int) -> None:
    each = spread(blocks, threads, HOPPER) + RESERVED
    count = 1
    for extent in blocks:
        count *= extent
    share = min(ceil_div(count, HOPPER.processors), RESIDENT // threads)
    assert share * each <= SHARED_OF_A_MULTIPROCESSOR < (share + 1) * each
    assert each <= HOPPER.shared_bytes


def test_only_where_kernels_may_begin_early() -> None:
    assert spread((1,), 32, ARCHITECTURES["sm_87"]) == 0
    assert spread((10**6,), 32, HOPPER) > 0
