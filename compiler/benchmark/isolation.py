"""Calls a function in a process of its own."""

import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

INTERRUPTED = 130
P = ParamSpec("P")
T = TypeVar("T")


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a fresh process: its memory, its threads, its crashes stay there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start_child) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _start_child() -> None:
    """Keep it quiet: no warnings of others about their own quantizers, no traceback at Ctrl-C.

    What they print goes to stderr: stdout belongs to ``--json``.
    """
    os.dup2(2, 1)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, lambda *_: sys.exit(INTERRUPTED))
