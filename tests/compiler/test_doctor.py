"""`doctor`: what it finds is there, and what is missing is named with what it costs."""

import json
import shutil

import pytest

from vitq.compiler.stages import doctor as stage
from vitq.compiler.stages.doctor import Finding, doctor
from vitq.compiler.support.tables import print_table
from vitq.compiler.target import qemu, tools
from vitq.compiler.target.table import CPU_TARGETS


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    """What was looked for -> what was said."""
    return {finding.what: finding for finding in findings}


def test_what_is_needed_is_found_here() -> None:
    found = by_name(doctor())
    assert all(found[package].found and not found[package].lack for package in stage.PACKAGES)
    assert found["target cpu"].found
    assert json.dumps([finding.to_json() for finding in found.values()])


def test_each_processor_of_the_table_is_answered_for_once() -> None:
    lines = [f for f in doctor() if f.what.startswith("targets ")]
    names = [name for f in lines for name in f.what.removeprefix("targets ").split(", ")]
    assert sorted(names) == sorted(CPU_TARGETS)


def test_a_lack_says_what_it_costs_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(stage, "installed", lambda _package: None)
    found = by_name(doctor())
    assert "apt-get install g++" in found["target cpu"].lack
    assert found["xgboost"] == Finding("xgboost", None, found["xgboost"].lack)
    assert "pip install 'vitq[tune]'" in found["xgboost"].lack
    assert found["ssh"].lack == "vitq deploy --to is refused"
    arm = next(f for what, f in found.items() if what.startswith("targets ") and "rpi4" in what)
    assert arm.found is None and "apt-get install" in arm.lack


def test_a_target_that_is_only_compiled_is_told_from_one_that_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "why_not", lambda _target: "no emulator")
    monkeypatch.setattr(stage, "_why_not_linked", lambda _target: "")
    said = [f for f in doctor() if f.lack == "compiles, but is not tried here: no emulator"]
    (finding,) = said
    assert "rpi5" in finding.what and "x86" not in finding.what
    assert qemu.why_not is not stage.why_not


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=stage.FREE_BYTES // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    assert "make room" in by_name(doctor())["cache folder"].lack


def test_tables_print_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a"], [["pip install 'vitq[tune]'"]], "")
    assert "vitq[tune]" in capsys.readouterr().out
