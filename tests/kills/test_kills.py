"""A killed command leaves nothing that its rerun trips over; and the comparison can fail."""

from pathlib import Path

import pytest

from tests.kills import kill
from tests.kills.kill import CASES, Case, content, kill_each, kill_once


def test_quantize_and_export_survive_a_kill(tmp_path: Path) -> None:
    assert kill_each(tmp_path, CASES[:2], 2, seed=5) == []


def test_a_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_case: Case, folder: Path) -> float:
        (folder / "art" / ".half").mkdir(parents=True)
        (folder / "art" / "a.json").write_text('{"scale": 2, "seconds": 9}')
        return 0.0

    class Gone:
        def send_signal(self, _number: int) -> None: ...
        def communicate(self) -> None: ...

    kept = tmp_path / "kept"
    (kept / "art").mkdir(parents=True)
    (kept / "art" / "a.json").write_text('{"scale": 2, "seconds": 1}')
    expected = content(kept / "art")
    monkeypatch.setattr(kill, "complete", write)
    monkeypatch.setattr(kill, "start", lambda _case, _folder: Gone())
    (fault,) = kill_once(CASES[0], kept, tmp_path / "place", 0.0, expected)
    assert fault.endswith(".half/ is not what an unbroken run leaves")
    (kept / "art" / "a.json").write_text('{"scale": 3}')
    faults = kill_once(CASES[0], kept, tmp_path / "place", 0.0, content(kept / "art"))
    assert [line.split(": ")[1].split()[0] for line in faults] == [".half/", "a.json"]
