"""What a person sees of a running search: a line for each task, and the whole."""

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from vitq.compiler.tuning.session import Session, State

NAME_WIDTH = 60


class Progress:
    """Bars on stderr: trials and best so far of each task, time left of the whole.

    Args:
        session: that is run.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.started = time.monotonic()
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.rows = {
            id(state): self.bars.add_task(
                f"{state.task.calls:3} x {state.task.text[:NAME_WIDTH]}",
                total=_points(state),
                note="",
            )
            for state in session.states
        }
        self.whole = self.bars.add_task("all", total=1.0, note="")

    def __enter__(self) -> "Progress":
        for state in self.session.states:
            self._task(state)
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def show(self, state: State) -> None:
        """After a trial of a task."""
        self._task(state)
        share, left = self._share()
        note = f"{self.session.trials} trials" + (f", {left / 60:.1f} min left" if left else "")
        self.bars.update(self.whole, completed=share, note=note)

    def _task(self, state: State) -> None:
        ranked = state.ranked()
        note = f"{len(state.known)} trials"
        if ranked:
            note += f", best {1e6 * ranked[0][1].seconds:.1f} us"
        untuned = state.known.get(state.default)
        if untuned and untuned.works:
            note += f" (untuned {1e6 * untuned.seconds:.1f})"
        self.bars.update(self.rows[id(state)], completed=len(state.known), note=note)

    def _share(self) -> tuple[float, float]:
        """How much of the budget is spent, and seconds left at this pace."""
        limits, now = self.session.limits, time.monotonic()
        spent = [0.0]
        if limits.trials:
            start = self.session.started_with
            spent.append((self.session.trials - start) / max(limits.trials - start, 1))
        if limits.deadline < math.inf:
            spent.append((now - self.started) / max(limits.deadline - self.started, 1e-3))
        share = min(max(spent), 1.0)
        return share, (now - self.started) * (1 - share) / share if share else 0.0


def _points(state: State) -> Any:
    return math.prod(len(knob.choices) for knob in state.task.knobs.values())
