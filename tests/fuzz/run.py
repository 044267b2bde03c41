"""The long run: ``make fuzz MINUTES=10 SEED=0``, or ``python -m tests.fuzz.run``.

Each parser gets an equal part of the time, or ``--count`` inputs. An input is a function of seed,
parser and number, so that a run can be repeated (``--seed``) and continued (``--first``). What
fails is kept in ``tests/fuzz/corpus``, which every later test reads. The C++ runner's readers have
``tests.fuzz.runner_fuzz``.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator

from tests.fuzz.fuzzing import damaged, fuzz, keep
from tests.fuzz.parsers import PARSERS


def main() -> int:
    """Run, print figures.

    Returns:
        1 where anything failed.
    """
    options = _options()
    names = options.parser or list(PARSERS)
    print(f"seed {options.seed}, from number {options.first} on", flush=True)
    failed = False
    for name in names:
        seconds = options.minutes * 60 / len(names)
        started = time.monotonic()
        figures = fuzz(name, _inputs(name, options, seconds))
        failed |= bool(figures.failures)
        print(
            f"{name}: {figures.tries} tries, {figures.taken} taken, {figures.refused} refused, "
            f"{len(figures.failures)} kinds of failures, {time.monotonic() - started:.0f} s; "
            f"next --first {options.first + figures.tries}",
            flush=True,
        )
        for what, content in figures.failures.items():
            print(f"  {what}: {keep(name, content) or 'too large to keep'}", flush=True)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all parsers together")
    parser.add_argument("--count", type=int, help="inputs of each parser, instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--parser", action="append", choices=list(PARSERS))
    return parser.parse_args()


def _inputs(name: str, options: argparse.Namespace, seconds: float) -> Iterator[bytes]:
    """Damaged files until the time is over, or as many as were asked for."""
    started = time.monotonic()
    for index in itertools.count(options.first):
        if options.count is not None and index >= options.first + options.count:
            return
        if options.count is None and time.monotonic() - started > seconds:
            return
        yield damaged(name, options.seed, index)


if __name__ == "__main__":
    sys.exit(main())
