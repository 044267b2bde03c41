"""Processes that stay alive: what comes back of them, and what does not."""

import os
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitq.compiler.benchmark.isolation import isolated
from vitq.compiler.support.worker import Pool, Worker, WorkerError
from vitq.numerics.errors import RangeError
from vitq.numerics.exp2 import exp2_fraction

TIME_S = 60.0
LAST_WORDS = "import os, sys; print('no memory', file=sys.stderr, flush=True); os._exit(3)"


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker(imports=(), captured=True)
    yield one
    one.close()


def test_one_process_does_one_thing_after_another(worker: Worker) -> None:
    first, second = (worker.call(os.getpid, timeout_s=TIME_S) for _ in range(2))
    assert first == second != os.getpid()
    assert worker.call(exp2_fraction, 0, timeout_s=TIME_S) == 255 * 128


def test_a_failure_is_one_line_and_costs_no_process(worker: Worker) -> None:
    before = worker.call(os.getpid, timeout_s=TIME_S)
    with pytest.raises(WorkerError, match=r"^ZeroDivisionError: .*zero$") as failed:
        worker.call(divmod, 1, 0, timeout_s=TIME_S)
    assert isinstance(failed.value.raised, ZeroDivisionError)
    assert "serve" in "".join(failed.value.raised.__notes__), "where it failed"
    assert worker.call(os.getpid, timeout_s=TIME_S) == before


def test_a_crash_is_one_line_with_its_last_words_and_the_next_job_has_a_new_process(
    worker: Worker,
) -> None:
    before = worker.call(os.getpid, timeout_s=TIME_S)
    with pytest.raises(WorkerError, match=r"^its process ended with code 3: no memory$"):
        worker.call(exec, LAST_WORDS, timeout_s=TIME_S)
    with pytest.raises(WorkerError, match=r"^its process ended with code -6"):
        worker.call(os.abort, timeout_s=TIME_S)
    assert worker.call(os.getpid, timeout_s=TIME_S) != before


def test_a_hang_ends_the_process_and_all_that_it_started(worker: Worker, tmp_path: Path) -> None:
    started = tmp_path / "started"
    hang = f"import os; os.system('echo $$ > {started}; exec sleep 600')"
    with pytest.raises(WorkerError, match="took more than 3 s"):
        worker.call(exec, hang, timeout_s=3)
    child = int(started.read_text())
    for _ in range(100):
        stat = Path(f"/proc/{child}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("what the worker started is still there")


def test_what_cannot_be_sent_is_a_failure(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="pickle"):
        worker.call(eval, "lambda: 0", timeout_s=TIME_S)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        worker.call(lambda: 0, timeout_s=TIME_S)
    assert worker.call(len, "abc", timeout_s=TIME_S) == 3


def test_variables_and_cores_are_there_before_any_import() -> None:
    cores = sorted(os.sched_getaffinity(0))[:1]
    worker = Worker(cores, {"VITQ_TEST": "seen"}, imports=())
    try:
        assert worker.call(os.getenv, "VITQ_TEST", timeout_s=TIME_S) == "seen"
        assert worker.call(os.sched_getaffinity, 0, timeout_s=TIME_S) == set(cores)
        loaded = worker.call(eval, "sorted(__import__('sys').modules)", timeout_s=TIME_S)
        assert not {"numpy", "tvm", "torch"} & set(loaded)
        assert worker.call(eval, "__import__('sys').argv", timeout_s=TIME_S) == sys.argv
    finally:
        worker.close()


def test_jobs_are_shared_and_a_failed_one_is_its_error() -> None:
    pool = Pool([Worker(imports=()) for _ in range(2)])
    try:
        found = pool.map(divmod, [(7, 2), (1, 0), (9, 4)], timeout_s=TIME_S)
    finally:
        pool.close()
    assert found[0] == (3, 1) and found[2] == (2, 1) and isinstance(found[1], WorkerError)


def test_what_an_isolated_function_raises_is_raised_here() -> None:
    with pytest.raises(RangeError, match="too large"):
        isolated(eval, "__import__('vitq.numerics.dyadic', fromlist=['a']).to_dyadic(2.0**40)")
    with pytest.raises(WorkerError, match="ended with code 3"):
        isolated(os._exit, 3)
    assert isolated(sorted, [2, 1], reverse=False) == [1, 2]
