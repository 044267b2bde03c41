"""Where logs are read and written: a checkout's own folder, or the user's for an installed one."""

import shutil
from pathlib import Path

import pytest

from vitq.compiler.support import folders
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning import places
from vitq.compiler.tuning.log import find_log, read_log

TARGET = get_target("x86-vnni")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed package: the user's folder is empty, the package's is not to be written."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(places, "is_checkout", lambda: False)
    return tmp_path / "vitq" / "tuning_logs"


def test_a_checkout_tunes_into_its_own_folder() -> None:
    assert folders.is_checkout()
    assert places.own_log(TARGET) == places.LOGS / "x86-vnni"
    assert places.begin_own_log(TARGET) == places.shipped_log(TARGET)


def test_an_installed_package_is_never_written(installed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in places.LOGS.rglob("*")}
    own = places.begin_own_log(TARGET)
    assert own == installed / "x86-vnni"
    assert read_log(own) == read_log(places.shipped_log(TARGET))
    assert before == {path: path.stat().st_mtime_ns for path in places.LOGS.rglob("*")}


def test_compile_reads_the_users_log_first(installed: Path) -> None:
    assert find_log(TARGET, True, None) == places.shipped_log(TARGET)
    own = places.begin_own_log(TARGET)
    assert find_log(TARGET, True, None) == own
    shutil.rmtree(own)
    assert find_log(TARGET, True, None) == places.shipped_log(TARGET)


def test_the_nearest_gpus_log_may_be_the_users(installed: Path) -> None:
    assert places.nearest_log(get_target("rtx2080ti")) == places.LOGS / "cuda-sm_90"
    shutil.copytree(places.LOGS / "cuda-sm_90", installed / "cuda-sm_80")
    assert places.nearest_log(get_target("rtx2080ti")) == installed / "cuda-sm_80"
    assert places.nearest_log(TARGET) is None
