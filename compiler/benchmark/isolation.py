"""Calls a function in a process of its own."""

import functools
import logging
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from vitq.compiler.support.worker import Worker, WorkerError

LIMIT_S = 6 * 3600.0
"""Of one call: quantizing and compiling a large model takes minutes, a hang forever."""
P = ParamSpec("P")
T = TypeVar("T")


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a fresh process: its memory, its threads, its crashes stay there.

    Raises:
        WorkerError: the process ended, or did not end.
        Exception: what the function raised.
    """
    worker = Worker(imports=())
    try:
        return worker.call(
            _quietly, functools.partial(function, *args, **kwargs), timeout_s=LIMIT_S
        )
    except WorkerError as error:
        if error.raised is not None:
            raise error.raised from None
        raise
    finally:
        worker.close()


def _quietly(function: Callable[[], T]) -> T:
    """No warnings of others about their own quantizers."""
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    return function()
