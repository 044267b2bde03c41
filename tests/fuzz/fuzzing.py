"""Runs damaged files through a parser, and says what went wrong."""

import hashlib
import logging
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.parsers import LONGEST_S, PARSERS
from vitq.numerics.errors import VitqError

CORPUS = Path(__file__).parent / "corpus"
HIDDEN = ".*"
LARGEST_KEPT = 1 << 16
"""Bytes of a failure that is kept in the corpus."""


class SlowError(Exception):
    """A reading took longer than `LONGEST_S`."""


@dataclass
class Figures:
    """What some readings came to.

    Attributes:
        tries: readings.
        taken: of them succeeded.
        refused: ended in one line.
        failures: what went wrong -> an input for which it did.
    """

    tries: int = 0
    taken: int = 0
    refused: int = 0
    failures: dict[str, bytes] = field(default_factory=dict)


def damaged(name: str, seed: int, index: int) -> bytes:
    """The input of that number: the same in every run."""
    random = np.random.default_rng([seed, index, *name.encode()])
    parser = PARSERS[name]
    seeds = _seeds(name)
    return parser.damage(seeds[index % len(seeds)], random)


_known: dict[str, list[bytes]] = {}


def _seeds(name: str) -> list[bytes]:
    if name not in _known:
        _known[name] = PARSERS[name].seeds()
    return _known[name]


def fuzz(name: str, inputs: Iterator[bytes]) -> Figures:
    """Read inputs until there are no more."""
    figures = Figures()
    for content in inputs:
        figures.tries += 1
        try:
            outcome = read(name, content)
        except Exception as error:
            figures.failures.setdefault(_described(error), content)
            continue
        figures.taken += outcome
        figures.refused += not outcome
    return figures


def read(name: str, content: bytes) -> bool:
    """One reading.

    Returns:
        Whether it succeeded; False for a refusal.

    Raises:
        Exception: neither; `SlowError`; or an `AssertionError` for a line that is none and for
            what is left behind.
    """
    parser = PARSERS[name]
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    path = folder / f"input{parser.suffix}"
    path.write_bytes(content)
    started = time.monotonic()
    try:
        with _quiet(), _limited():
            parser.read(path)
        return True
    except (VitqError, OSError) as error:
        assert str(error).strip(), "an empty message"
        assert len(str(error)) < 3000, "a message that nobody reads"
        return False
    finally:
        assert time.monotonic() - started < LONGEST_S, "slow"
        left = [p for p in folder.rglob(HIDDEN) if p.is_file()]
        shutil.rmtree(folder)
        assert not left, f"left behind: {left}"


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _limited() -> Iterator[None]:
    """End a reading that hangs."""

    def stop(*_: Any) -> None:
        raise SlowError(f"longer than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _described(error: BaseException) -> str:
    """Where it happened in this project, and what."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/site-packages/" not in f.filename and "/fuzz/" not in f.filename]
    last = own[-1] if own else frames[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}"


def keep(name: str, content: bytes) -> Path | None:
    """Put a failure into the corpus; None where it is too large."""
    if len(content) > LARGEST_KEPT:
        return None
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = CORPUS / name / f"{digest}{PARSERS[name].suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
