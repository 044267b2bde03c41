"""What the emulated GPU must refuse: each test breaks a kernel in one way."""

from typing import Any

import numpy as np
import pytest

from tests.compiler.kernels.util import GPU, run_op
from vitq.compiler.kernels import building
from vitq.compiler.kernels.building import build
from vitq.compiler.kernels.cuda import intrinsics, loading, mainloop
from vitq.compiler.kernels.cuda.emit import (
    Shared,
    address,
    flat,
    get,
    index,
    launch,
    put,
    registers,
    serial,
    when,
)
from vitq.compiler.kernels.cuda.emulator.emulator import EmulationError, run_kernel
from vitq.compiler.kernels.tensor import TensorType
from vitq.numerics.dyadic import Dyadic, rescale
from vitq.numerics.matmul import int_matmul
from vitq.relay_passes.dialect import names

WORDS = TensorType((64,), "int32")


def run(body: Any) -> np.ndarray:
    """A kernel of 64 threads that copies 64 words, as far as `body` does it."""

    def emit(x: Any, out: Any) -> None:
        with launch((1,), 64) as block:
            body(block, flat(x), flat(out), Shared(256))

    func = build("kernel", [WORDS], WORDS, emit)
    return run_kernel(func, [np.arange(64, dtype=np.int32)], np.zeros(64, np.int32))


def exchange(with_barrier: bool) -> Any:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        words = shared.view("int32")
        put(words, block.thread, x[block.thread])
        if with_barrier:
            intrinsics.barrier()
        put(out, block.thread, words[63 - block.thread])

    return body


def test_a_missing_barrier_is_a_race() -> None:
    np.testing.assert_array_equal(run(exchange(True)), np.arange(64)[::-1])
    with pytest.raises(EmulationError, match="a race"):
        run(exchange(False))


def test_two_threads_that_write_one_word_are_a_race() -> None:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        put(shared.view("int32"), block.thread // 2, x[block.thread])

    with pytest.raises(EmulationError, match="a race"):
        run(body)


def copy(wait: bool) -> Any:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        with when(block.thread < 16):
            source, to = address(x, block.thread * 4), address(shared.bytes, block.thread * 16)
            intrinsics.copy16(to, source)
        intrinsics.commit()
        if wait:
            intrinsics.wait(0)
        intrinsics.barrier()
        put(out, block.thread, shared.view("int32")[block.thread])

    return body


def test_a_copy_is_there_after_wait_only() -> None:
    np.testing.assert_array_equal(run(copy(wait=True)), np.arange(64))
    assert (run(copy(wait=False)) != np.arange(64)).any()


def test_outside_of_a_buffer() -> None:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        put(out, block.thread, x[block.thread + 1])

    with pytest.raises(EmulationError, match="outside of its 64 elements"):
        run(body)


def test_a_barrier_in_a_branch() -> None:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        with when(block.thread < 32):
            intrinsics.barrier()

    with pytest.raises(EmulationError, match="not all threads"):
        run(body)


def test_a_warp_instruction_of_half_a_warp() -> None:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        with when(block.thread < 16):
            value = registers(1)
            put(value, 0, x[block.thread])
            put(out, block.thread, intrinsics.shuffle(value[0], 1))

    with pytest.raises(EmulationError, match="not all lanes"):
        run(body)


def test_a_loop_that_differs_between_threads() -> None:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        with serial(index(block.thread % 3)) as i:
            put(out, block.thread, i)

    with pytest.raises(EmulationError, match="not the same"):
        run(body)


def test_registers_and_output_start_as_noise() -> None:
    def body(block: Any, x: Any, out: Any, shared: Shared) -> None:
        with when(block.thread < 32):
            put(out, block.thread, registers(1)[0])

    result = run(body)
    assert len(np.unique(result)) > 60, "neither zeros nor what was there before"


@pytest.mark.parametrize("known", [(), (0,)])
@pytest.mark.parametrize("waits", [True, False])
def test_inputs_are_awaited(known: tuple[int, ...], waits: bool) -> None:
    """Before that, constants may be read, and nothing may be written."""

    def emit(x: Any, out: Any) -> None:
        with launch((1,), 64, early=True) as block:
            value = get(flat(x), block.thread)
            if waits:
                intrinsics.await_inputs()
            put(flat(out), block.thread, value)

    func = build("kernel", [WORDS], WORDS, emit)
    array = np.arange(64, dtype=np.int32)
    if waits and known:
        np.testing.assert_array_equal(run_kernel(func, [array], array, known), array)
        return
    with pytest.raises(EmulationError, match="before the kernels in front"):
        run_kernel(func, [array], array, known)


def test_a_kernel_that_waits_for_nobody() -> None:
    def emit(x: Any, out: Any) -> None:
        with launch((1,), 64, early=True):
            pass

    func = build("kernel", [WORDS], WORDS, emit)
    array = np.arange(64, dtype=np.int32)
    with pytest.raises(EmulationError, match="does not wait"):
        run_kernel(func, [array], array)


def linear_difference() -> int:
    """How many integers of a linear layer are wrong."""
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (33, 128), dtype=np.int8)
    weight = rng.integers(-128, 128, (40, 128), dtype=np.int8)
    bias, zeros = rng.integers(-999, 999, 40).astype(np.int32), np.zeros(40, np.int32)
    dyadic = Dyadic(np.full(40, 2**30, np.int32), np.full(40, 40, np.int32))
    limits = np.array([-128, 127], np.int64)
    operands = [x, weight, bias, dyadic.multiplier, dyadic.shift, zeros, limits]
    result = run_op(names.LINEAR, operands, TensorType((33, 40), "int8"), GPU)
    expected = np.clip(rescale(int_matmul(x, weight.T) + bias, dyadic), -128, 127)
    return int(np.count_nonzero(result != expected))


def test_the_product_is_right_unless_an_index_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: columns, registers or banks in the wrong order, no waiting."""

    def broken() -> int:
        building._build.cache_clear()
        return linear_difference()

    assert broken() == 0
    with monkeypatch.context() as patch:
        patch.setattr(mainloop, "grouped_row", lambda fragment, row: fragment * 8 + row)
        assert broken() > 0
    mma = intrinsics.mma
    with monkeypatch.context() as patch:
        patch.setattr(intrinsics, "mma", lambda acc, a, b, s: mma(acc, a, b[::-1], s))
        assert broken() > 0
    offset = loading.Layout.offset
    with monkeypatch.context() as patch:
        calls = iter(range(10**6))

        def moved(self: Any, row: Any, piece: Any) -> Any:
            return offset(self, row, piece ^ (1 if next(calls) == 3 else 0))

        patch.setattr(loading.Layout, "offset", moved)
        assert broken() > 0
    with monkeypatch.context() as patch:
        patch.setattr(intrinsics, "wait", lambda pending: None)
        assert broken() > 0
    with monkeypatch.context() as patch:
        patch.setattr(intrinsics, "await_inputs", lambda: None)
        with pytest.raises(EmulationError, match="before the kernels in front"):
            broken()
    with monkeypatch.context() as patch:
        patch.setattr(intrinsics, "barrier", lambda: None)
        with pytest.raises(EmulationError, match="a race"):
            broken()
    assert broken() == 0
