"""Searching: budgets, resuming, and candidates that crash or hang."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tvm.s_tir import meta_schedule as ms

from tests.compiler.tuning_templates import BAD, CRASH, HANG, kernel_of, task_of
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning.log import read_log, writing
from vitq.compiler.tuning.places import RECORDS
from vitq.compiler.tuning.schedules import best, is_valid
from vitq.compiler.tuning.search import (
    candidates_of,
    confirm,
    context_of,
    cost_model,
    measure_defaults,
    search,
    warm_up,
)
from vitq.compiler.tuning.session import Limits, Session
from vitq.compiler.tuning.workload import Task

ROOT = Path(__file__).resolve().parents[2]
TARGET = get_target("cpu")
QUICK = {"measure_s": 0.002, "build_s": 4.0}


@contextmanager
def open_session(folder: Path, tasks: Sequence[Task], **limits: float | None) -> Iterator[Session]:
    with writing(folder, TARGET):
        with Session(tasks, TARGET, folder, Limits(**{**QUICK, **limits})) as session:  # type: ignore[arg-type]
            yield session


def records(folder: Path) -> list[str]:
    return (folder / RECORDS).read_text().splitlines()


def test_a_search_and_its_resumption(tmp_path: Path) -> None:
    tasks = [task_of(kernel_of(), 3), task_of(kernel_of(size=256))]
    with open_session(tmp_path, tasks, trials=10) as session:
        measure_defaults(session)
        assert [list(state.known) for state in session.states] == [
            [state.default] for state in session.states
        ], "the untuned points come first"
        search(session, seed=1)
        assert session.trials == 10
    first = records(tmp_path)
    assert len(first) == 10
    with open_session(tmp_path, tasks, trials=20) as session:
        assert session.started_with == 10
        measure_defaults(session)
        assert session.trials == 10, "what is in the log is not measured again"
        search(session, seed=2)
        assert session.trials == 20
        assert records(tmp_path)[:10] == first
        confirm(session)
    found = read_log(tmp_path)
    assert sum(len(entries) for entries in found.values()) == 20
    for task in tasks:
        assert all(is_valid(task.kernel, entry.values) for entry in found[task.text])
        chosen = best(found[task.text])
        default = next(e for e in found[task.text] if e.values == task.kernel.schedule())
        assert chosen.confirmed and default.confirmed
        assert chosen.seconds <= default.seconds
    database = ms.database.JSONDatabase(work_dir=str(tmp_path))
    assert len(database) == len(records(tmp_path)), "MetaSchedule reads its own format"


def test_minutes_stop_the_search(tmp_path: Path) -> None:
    tasks = [task_of(kernel_of(size=64 * (i + 1))) for i in range(8)]
    deadline = time.monotonic() + 6
    with open_session(tmp_path, tasks, deadline=deadline) as session:
        measure_defaults(session)
        search(session, seed=0)
        assert session.is_over
        assert session.trials < 160


def test_a_crash_or_a_hang_costs_its_trial_only(tmp_path: Path) -> None:
    task = task_of(kernel_of(BAD))
    with open_session(tmp_path, [task], trials=100) as session:
        measure_defaults(session)
        search(session, seed=0)
        known = {dict(point)["lanes"]: entry for point, entry in session.states[0].known.items()}
    assert len(known) >= 5, "the search goes on to the end of its space"
    assert {lanes for lanes, entry in known.items() if not entry.works} == known.keys() & {
        CRASH,
        HANG,
    }
    assert known.keys() & {CRASH, HANG}


def test_a_killed_run_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.compiler.tuning_templates", str(tmp_path)]
    process = subprocess.Popen([*command, "20"], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / RECORDS).is_file() and len(records(tmp_path)) >= 6:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it was killed"
    before = records(tmp_path)
    assert len(before) >= 6 and all(json.loads(line) for line in before)
    trials = str(len(before) + 3)
    done = subprocess.run([*command, trials], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = records(tmp_path)
    assert after[: len(before)] == before
    points = sum(len(entries) for entries in read_log(tmp_path).values())
    assert points == len(before) + 3


def test_without_xgboost_the_search_is_random(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with caplog.at_level("INFO", "vitq.compiler"):
        model = cost_model([task_of(kernel_of())], seed=0)
    assert isinstance(model, ms.cost_model.RandomModel)
    assert "pip install vitq[tune]" in caplog.text


def test_the_cost_model_learns_from_the_log(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    task = task_of(kernel_of())
    with open_session(tmp_path, [task]) as session:
        model = cost_model([task], seed=0)
        assert math.isinf(session.limits.deadline)
        for lanes in (1, 2, 4, 8, 16):
            for blocks in (1, 2, 4, 8):
                point = (("blocks", blocks), ("lanes", lanes))
                session.keep(session.states[0], point, [1e-6 / lanes])
        context = context_of(session, task, 0)
        warm_up([session.states[0]], [context], model)
        points = [(("blocks", 2), ("lanes", lanes)) for lanes in (1, 4, 16)]
        slow, middle, fast = model.predict(context, candidates_of(task, points))
    assert fast > max(slow, middle)
