"""Logs: torn, locked, of another version, stale, pruned."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiler.test_tuning_space import TARGET, write_log
from tests.compiler.tuning_templates import ADD, kernel_of, task_of
from vitq.compiler.kernels.kernel import Template
from vitq.compiler.target import table as targets
from vitq.compiler.tuning import log as logs
from vitq.compiler.tuning.log import WORKLOADS, find_log, mend, prune, read_log, writing
from vitq.compiler.tuning.places import RECORDS
from vitq.compiler.tuning.schedules import NO_KNOBS, NO_RECORD, STALE, Schedules, best
from vitq.numerics.errors import VitqError

ROOT = Path(__file__).resolve().parents[2]
POINTS = [{"lanes": lanes, "blocks": 2} for lanes in (1, 2, 4, 8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = task_of(kernel_of())
    return write_log(tmp_path / "log", [(task, values) for values in POINTS])


def test_only_an_unfinished_last_line_is_dropped(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / RECORDS
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[:-40])
    assert [len(entries) for entries in read_log(folder).values()] == [3]
    with caplog.at_level(logging.INFO, "vitq.compiler"), writing(folder, TARGET):
        pass
    assert "unfinished line" in caplog.text
    assert path.read_bytes() == b"".join(lines[:-1])
    path.write_bytes(whole.rstrip(b"\n"))
    assert not mend(path), "a whole line without its end is kept"
    assert path.read_bytes() == whole
    path.write_bytes(lines[0][:50] + b"\n" + lines[1])
    with pytest.raises(VitqError, match="line 1 is damaged"):
        read_log(folder)


def test_a_line_that_is_no_record_is_named(folder: Path) -> None:
    with (folder / RECORDS).open("a") as file:
        file.write("[7, []]\n")
    with pytest.raises(VitqError, match="line 5: not a record"):
        read_log(folder)


def test_a_line_that_is_no_workload_is_named(folder: Path) -> None:
    with (folder / WORKLOADS).open("a") as file:
        file.write('["0", "x"]\n')
    with pytest.raises(VitqError, match=r"line 2: not a workload \("):
        read_log(folder)


@pytest.mark.parametrize("written", [b"", b'[0, [[[], ["half'])
def test_a_record_that_did_not_fit_is_noticed(written: bytes, folder: Path) -> None:
    class Full:
        """A database of TVM's on a full disk, which says nothing."""

        def commit_tuning_record(self, record: object) -> None:
            """Append what fits."""
            with (folder / RECORDS).open("ab") as file:
                file.write(written)

    with pytest.raises(OSError, match=r"No space left on device: .*tuning_record\.json"):
        logs.commit(Full(), None, folder / RECORDS)
    mend(folder / RECORDS)
    assert [len(entries) for entries in read_log(folder).values()] == [4]


def test_another_version_or_target_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(t for t in targets.TARGETS.values() if t.name != logs.entry_name(TARGET))
    with pytest.raises(VitqError, match=f"is of target .*, not {other.name}: tune again"):
        find_log(other, tuned=True, given=folder)
    with pytest.raises(VitqError, match="is of target"), writing(folder, other):
        pass
    monkeypatch.setattr(logs, "TVM_VERSION", "9.9")
    with pytest.raises(VitqError, match=r"is of TVM 0\.27.*, not 9\.9"):
        find_log(TARGET, tuned=True, given=folder)


def test_meta_names_no_machine(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    assert set(meta) == {"tvm_version", "target", "target_config", "host_cpu", "times", "date"}
    assert meta["target"] in targets.TARGETS, "cpu stands for an entry of the table"


def test_a_folder_that_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match="no tuning log"):
        find_log(TARGET, tuned=True, given=tmp_path)
    assert find_log(TARGET, tuned=False, given=None) is None


def test_one_process_writes_at_a_time(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from vitq.compiler.target.choice import get_target\n"
        "from vitq.compiler.tuning.log import writing\n"
        "with writing(Path(sys.argv[1]), get_target('cpu')): pass"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with writing(folder, TARGET):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "another process is tuning" in done.stderr
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_stale_records_are_skipped_and_reported(folder: Path) -> None:
    kernel = kernel_of()
    entries = read_log(folder)
    fewer = Template(ADD.name, ADD.emit, lambda k: {"lanes": ADD.knobs(k)["lanes"]})
    schedules = Schedules(entries, folder)
    assert schedules(kernel_of(fewer)) == {}
    assert schedules(kernel) in POINTS
    assert schedules(kernel_of(size=64)) == {}
    assert schedules(kernel_of(Template(ADD.name, ADD.emit))) == {}
    sources = [applied.source for applied in schedules.applied]
    assert sources == [STALE, "log", NO_RECORD, NO_KNOBS]
    assert [a.name for a in schedules.applied] == [f"test_add_{i}" for i in range(4)]
    assert schedules.summary() == (
        f"schedules: 1 from {folder}, 3 default (1 no knobs, 1 no record, 1 stale record)"
    )


def test_the_last_measurement_of_a_point_counts(folder: Path) -> None:
    task = task_of(kernel_of())
    write_log(folder, [(task, POINTS[0])], seconds=5e-7)
    write_log(folder, [(task, POINTS[0])], seconds=5e-6)
    entries = read_log(folder)[task.text]
    assert [entry.values for entry in entries] == POINTS
    assert entries[0].seconds == 5e-6
    assert best(entries).values != POINTS[0]


def test_pruning_keeps_the_best_and_the_untuned(folder: Path) -> None:
    task = task_of(kernel_of())
    untuned = {"lanes": 16, "blocks": 8}
    write_log(folder, [(task, untuned)], seconds=1.0)
    write_log(folder, [(task, POINTS[2])], seconds=1e-7)
    before = best(read_log(folder)[task.text])
    with writing(folder, TARGET):
        assert prune(folder, {task.text: untuned}, best=2) == 3
    kept = read_log(folder)[task.text]
    assert best(kept) == before
    assert untuned in [entry.values for entry in kept] and len(kept) == 3
