"""Every line that begins the Makefile is a command: make knows its targets and its variables."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Makefile").read_text()
HEAD, _, BODY = TEXT.partition("\n\n")
LINES = [line.removeprefix("# ") for line in HEAD.splitlines()]
EXAMPLES = [line for line in LINES if line.startswith("make ")]
VARIABLE = re.compile(r"\b([A-Z][A-Z_]+)=")
OF_MAKE = {"setup", "clean", "help", "lint", "build"}
"""Targets that need no example: make's own, a part of ``check``, another name of ``compile``."""


def commands(example: str) -> list[list[str]]:
    """The words of an example, once for each of its alternative targets."""
    command = re.split(r" {2,}", re.sub(r" \(or [^)]*\)", "", example))[0]
    _, targets, *variables = shlex.split(command)
    return [[target, *variables] for target in targets.split("|")]


@pytest.mark.parametrize("words", [words for line in EXAMPLES for words in commands(line)], ids=str)
def test_an_example_can_be_made(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    command = ["make", "--dry-run", *words, f"READY={tmp_path / 'ready'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.parametrize("variable", sorted(set(VARIABLE.findall(HEAD))))
def test_a_variable_reaches_a_command(variable: str) -> None:
    assert re.search(rf"\$\({variable}\)", BODY)


def test_every_target_has_an_example() -> None:
    targets = set(re.search(r"^\.PHONY: (.*)$", BODY, re.MULTILINE)[1].split())  # type: ignore[index]
    shown = {words[0] for line in EXAMPLES for words in commands(line)}
    assert shown == targets - OF_MAKE


def test_values_with_spaces_and_letters_beyond_ascii_arrive_whole(tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    given = ["MODEL=mon modèle:bâtir", "CALIB=images à moi", "WEIGHTS=poids 重.safetensors"]
    command = ["make", "--dry-run", "quantize", *given, f"READY={tmp_path / 'ready'}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(said)
    for value in given:
        assert value.partition("=")[2] in words
