"""Stage = module = command = Makefile target, and the public API's name where it has one."""

import importlib
import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import vitq
from vitq.compiler.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
PLACES = ("stages", "studies", "benchmark")
FUNCTIONS = {"compile": "compile_model"}
"""Of modules that cannot call it like themselves: `compile` is Python's own."""
METHODS = {
    "export": vitq.Quantized.export,
    "verify": vitq.Library.verify,
    "evaluate": vitq.Library.evaluate,
    "run": vitq.Library.run,
}
COMMAND_LINE_ONLY = {"build", "where"}
"""Several calls in a row, and where files lie that the API keeps in memory."""


def module_of(command: str) -> str:
    """The one module of that name."""
    name = command.replace("-", "_")
    found = [f"vitq.compiler.{place}.{name}" for place in PLACES]
    found = [module for module in found if find_spec(module) is not None]
    assert len(found) == 1, (command, found)
    return found[0]


def test_all_commands_are_found() -> None:
    assert len(COMMANDS) >= 16 and {"quantize", "compile", "deploy"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_module_with_a_function_of_its_name(command: str) -> None:
    name = command.replace("-", "_")
    function = getattr(importlib.import_module(module_of(command)), FUNCTIONS.get(name, name))
    assert inspect.isfunction(function) and function.__module__ == module_of(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_target_in_the_makefile(command: str) -> None:
    text = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z -]+): .*\n((?:\t.*\n)+)", text, re.MULTILINE)
    (recipe,) = [recipe for names, recipe in rules if command in names.split()]
    wanted = "build" if command == "compile" else command
    assert f"$(VITQ) {wanted} " in recipe + " " or f"$(VITQ) {wanted}\n" in recipe
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None and command in phony[1].split()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_in_the_api(command: str) -> None:
    name = command.replace("-", "_")
    assert (name in vitq.__all__) + (name in METHODS) + (name in COMMAND_LINE_ONLY) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_answers_programs_too(command: str) -> None:
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert any("--json" in parameter.opts for parameter in parameters)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_module_is_what_the_command_line_calls(command: str) -> None:
    texts = [path.read_text() for path in (ROOT / "compiler" / "cli").glob("*.py")]
    assert any(f"from {module_of(command)} import" in text for text in texts)
