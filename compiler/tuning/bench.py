"""What times kernels: this machine's processor, or an emulator of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vitq.compiler.support.worker import Worker, WorkerError
from vitq.compiler.target.table import Target
from vitq.compiler.tuning.measure import Inputs, available_cores, predict_kernel, time_kernel


@dataclass(frozen=True)
class Attempt:
    """What came of timing some libraries.

    Attributes:
        seconds: times of each; fewer than wanted where it failed.
        device: that they were timed on; empty for this machine.
        error: why nothing was timed, if so.
    """

    seconds: list[list[float]]
    device: str = ""
    error: WorkerError | None = None


class Bench(Protocol):
    """Where kernels are timed."""

    @property
    def places(self) -> int:
        """How many threads may call `time` at once."""

    def time(self, inputs: Inputs, libraries: Sequence[str], rounds: int) -> list[Attempt]:
        """Time libraries of one task in turn, all in the same place.

        Args:
            inputs: what to call them with.
            libraries: paths.
            rounds: how often each.

        Returns:
            One attempt, or more where a device was lost; the last one counts.
        """

    def close(self) -> None:
        """End its processes."""


class LocalBench:
    """This machine: one place, so that nothing disturbs what is timed.

    Args:
        threads: of the kernels.
        environment: of the process that runs them.
        run_s: after which a measurement is given up.
        measure_s: how long a candidate is timed.
        emulated: the target that is emulated; None if this machine is it.
    """

    places = 1

    def __init__(
        self,
        threads: int,
        environment: dict[str, str],
        run_s: float,
        measure_s: float,
        emulated: Target | None,
    ) -> None:
        self.run_s, self.measure_s, self.emulated = run_s, measure_s, emulated
        self._worker = Worker(available_cores()[:threads], environment)

    def time(self, inputs: Inputs, libraries: Sequence[str], rounds: int) -> list[Attempt]:
        """See `Bench`."""
        times: list[list[float]] = [[] for _ in libraries]
        error = None
        for _ in range(rounds):
            for path, found in zip(libraries, times, strict=True):
                try:
                    found.append(self._once(path, inputs))
                except WorkerError as failure:
                    error = failure
        return [Attempt(times, error=error)]

    def _once(self, path: str, inputs: Inputs) -> float:
        if self.emulated:
            return self._worker.call(
                predict_kernel, path, inputs, self.emulated, timeout_s=self.run_s
            )
        return self._worker.call(time_kernel, path, inputs, self.measure_s, timeout_s=self.run_s)

    def close(self) -> None:
        """See `Bench`."""
        self._worker.close()
