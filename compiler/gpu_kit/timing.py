"""Time on the GPU, between CUDA events."""

import ctypes
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .ffi import CUDA, RuntimeFailedError, load_cuda

TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3
COPY_BYTES = 1 << 30
RELAXED_CAPTURE = 2
DELAY_STEPS = 150
"""Small operations, of more than a microsecond each."""
BLOCKS = 5
BLOCK_MS = 4.0
LONGEST_GRAPH = 512


class Gpu:
    """CUDA's runtime library: memory, events, graphs.

    Args:
        ffi: libtvm_ffi, whose stream the kernels are launched on; None without kernels.
    """

    def __init__(self, ffi: Any = None) -> None:
        self.cuda, self.ffi = load_cuda(), ffi
        self.cuda.cudaGetErrorString.restype = ctypes.c_char_p
        self.stream = ctypes.c_void_p()
        self._delay: ctypes.c_void_p | None = None
        self._start, self._stop = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cudaStreamCreate", ctypes.byref(self.stream))
        for event in (self._start, self._stop):
            self.call("cudaEventCreate", ctypes.byref(event))

    def call(self, name: str, *args: Any) -> None:
        """Call a function of the library.

        Raises:
            RuntimeFailedError: with CUDA's words.
        """
        code = getattr(self.cuda, name)(*args)
        if code:
            raise RuntimeFailedError(f"{name}: {self.cuda.cudaGetErrorString(code).decode()}")

    def put(self, array: Any) -> int:
        """Copy a NumPy array to device memory and return its address. It is never freed."""
        pointer = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(array.nbytes))
        source = ctypes.c_void_p(array.ctypes.data)
        self.call("cudaMemcpy", pointer, source, ctypes.c_size_t(array.nbytes), TO_DEVICE)
        assert pointer.value is not None
        return pointer.value

    def put_into(self, address: int, array: Any) -> None:
        """Overwrite device memory."""
        source = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self.call("cudaMemcpy", ctypes.c_void_p(address), source, size, TO_DEVICE)

    def get(self, address: int, array: Any) -> None:
        """Fill a NumPy array from device memory."""
        to = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self.call("cudaMemcpy", to, ctypes.c_void_p(address), size, TO_HOST)

    def wait(self) -> None:
        """Until everything is done; a failed kernel shows here."""
        self.call("cudaDeviceSynchronize")
        self.call("cudaGetLastError")

    @contextmanager
    def elapsed(self, times: list[float], stream: ctypes.c_void_p | None = None) -> Iterator[None]:
        """Append the milliseconds that the GPU takes for what is queued inside."""
        self.call("cudaEventRecord", self._start, stream)
        yield
        self.call("cudaEventRecord", self._stop, stream)
        self.call("cudaEventSynchronize", self._stop)
        value = ctypes.c_float(0)
        self.call("cudaEventElapsedTime", ctypes.byref(value), self._start, self._stop)
        times.append(value.value)

    def delay(self) -> None:
        """Keep the GPU busy for some 200 microseconds, without touching its caches.

        What is queued behind it is there when it begins, so that its time is the GPU's alone, and
        not that of the processor that launches it: as in a program that queues batch after batch.
        """
        if self._delay is None:
            place = ctypes.c_void_p()
            self.call("cudaMalloc", ctypes.byref(place), ctypes.c_size_t(DELAY_STEPS))

            def step() -> None:
                self.call("cudaMemsetAsync", place, 0, ctypes.c_size_t(1), self.stream)

            self._delay = self._record(step, DELAY_STEPS)
        self.call("cudaGraphLaunch", self._delay, None)

    def bytes_per_s(self) -> float:
        """Bandwidth of device memory: a large copy, bytes read plus bytes written."""
        ends = ctypes.c_void_p(), ctypes.c_void_p()
        for end in ends:
            self.call("cudaMalloc", ctypes.byref(end), ctypes.c_size_t(COPY_BYTES))
        times: list[float] = []
        for _ in range(BLOCKS + 1):
            with self.elapsed(times):
                size = ctypes.c_size_t(COPY_BYTES)
                self.call("cudaMemcpyAsync", ends[0], ends[1], size, ON_DEVICE, None)
        for end in ends:
            self.call("cudaFree", end)
        return 2000 * COPY_BYTES / statistics.median(times[1:])

    def kernel_us(self, launch: Callable[[], None]) -> float:
        """Microseconds of a kernel: many launches recorded as one graph, so without gaps.

        The median of `BLOCKS` replays.
        """
        launch()
        self.wait()
        once = self._replay(launch, 8)
        count = max(8, min(LONGEST_GRAPH, int(BLOCK_MS * 1000 / max(once, 0.5))))
        return self._replay(launch, count)

    def _record(self, launch: Callable[[], None], count: int) -> ctypes.c_void_p:
        """Record a graph of many launches."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cudaStreamBeginCapture", self.stream, RELAXED_CAPTURE)
        try:
            for _ in range(count):
                launch()
        finally:
            self.call("cudaStreamEndCapture", self.stream, ctypes.byref(graph))
        self.call("cudaGraphInstantiate", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        self.call("cudaGraphDestroy", graph)
        return ready

    def _replay(self, launch: Callable[[], None], count: int) -> float:
        with self._kernels_on(self.stream):
            ready = self._record(launch, count)
        times: list[float] = []
        for _ in range(BLOCKS + 1):
            with self.elapsed(times, self.stream):
                self.call("cudaGraphLaunch", ready, self.stream)
        self.wait()
        self.call("cudaGraphExecDestroy", ready)
        return 1000 * statistics.median(times[1:]) / count

    @contextmanager
    def _kernels_on(self, stream: ctypes.c_void_p) -> Iterator[None]:
        """TVM launches on this stream inside."""
        before = ctypes.c_void_p()
        self.ffi.TVMFFIEnvSetStream(CUDA, 0, stream, ctypes.byref(before))
        try:
            yield
        finally:
            self.ffi.TVMFFIEnvSetStream(CUDA, 0, before, None)


def summary(times: list[float], batch: int) -> dict[str, float]:
    """Median and 95th percentile of milliseconds, and pictures in a second."""
    ordered = sorted(times)
    median = statistics.median(ordered)
    return {
        "median_ms": median,
        "p95_ms": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "images_per_s": 1000 * batch / median,
        "runs": len(ordered),
    }
