"""Commands in README, docs and the Makefile's head: each option, variable and value exists."""

import re

import pytest

from docs.tools.commands import command_parsers
from tests.docs.pages import ROOT, Command, commands
from vitq.compiler.deploy.bundle import FLAVOURS
from vitq.compiler.target.choice import target_names
from vitq.compiler.target.gpus import ARCHITECTURES
from vitq.quantization.plan.methods import METHODS
from vitq.quantization.plan.recipe import Recipe

PARSERS = command_parsers()
ALL = commands()
MAKEFILE = (ROOT / "Makefile").read_text()
GPU_KIT = (ROOT / "compiler" / "gpu_kit" / "__main__.py").read_text()
PLACEHOLDERS = {"...", "<name>", "COMMAND", "STAGE", "NAME.json", "mixed"}
ALTERNATIVES = re.compile(r"[,|]")
CHOICES = {"target": target_names(), "method": list(METHODS), "flavour": list(FLAVOURS),
           "nonlinear": ["vitq", "ivit"], "arch": list(ARCHITECTURES)}  # fmt: skip


def lines(program: str) -> list[Command]:
    """The commands that start a program."""
    return [command for command in ALL if command.words[0] == program]


def check_value(name: str, value: str) -> None:
    """Refuse a value that the option would refuse."""
    for part in ALTERNATIVES.split(value):
        if part in PLACEHOLDERS:
            continue
        if name == "recipe":
            Recipe.parse(part)
        elif name in CHOICES:
            assert part in CHOICES[name], f"{name} {part!r} does not exist"


def options_of(command: Command) -> dict[str, str]:
    """Option -> the word behind it."""
    words = command.words[2:]
    pairs = zip(words, [*words[1:], ""], strict=False)
    return {word: after for word, after in pairs if word.startswith("-") and word != "-"}


@pytest.mark.parametrize("command", lines("vitq"), ids=str)
def test_a_vitq_command_has_its_options(command: Command) -> None:
    name = command.words[1]
    if name in PLACEHOLDERS or name.startswith("-"):
        return
    assert name in PARSERS, f"there is no command {name}"
    parser = PARSERS[name]
    known = {option: each for each in parser.params for option in each.opts} | {"--help": None}
    for option, value in options_of(command).items():
        assert option in known, f"vitq {name} has no option {option}"
        check_value(option.removeprefix("--"), value)


@pytest.mark.parametrize("command", [c for c in lines("vitq") if c.whole], ids=str)
def test_a_whole_vitq_command_gives_what_is_needed(command: Command) -> None:
    needed = [each for each in PARSERS[command.words[1]].params if each.required]
    given = options_of(command)
    for each in needed:
        if each.param_type_name == "argument":
            assert len(command.words) > 2 and not command.words[2].startswith("-")
        elif "..." not in command.words:
            assert any(option in given for option in each.opts), f"{each.opts[0]} is missing"


@pytest.mark.parametrize("command", lines("make"), ids=str)
def test_a_make_command_has_its_rule_and_variables(command: Command) -> None:
    rules = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert rules is not None
    for word in command.words[1:]:
        name, equals, value = word.partition("=")
        if equals and name.isupper():
            assert f"$({name})" in MAKEFILE, f"the Makefile knows no {name}"
            check_value(name.lower(), value.strip("'\""))
    for rule in command.words[1].split("|"):
        assert rule in rules[1].split() or rule in PLACEHOLDERS, f"there is no rule {rule}"


@pytest.mark.parametrize("command", lines("python3"), ids=str)
def test_a_kit_has_its_options(command: Command) -> None:
    for option in options_of(command):
        assert option == "-m" or f'"{option}"' in GPU_KIT


def test_commands_were_found() -> None:
    assert len(lines("vitq")) > 20 and len(lines("make")) > 20


def test_a_made_up_option_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no option"):
        test_a_vitq_command_has_its_options(Command("", ("vitq", "export", "x", "--y"), True))
    with pytest.raises(AssertionError, match="knows no"):
        test_a_make_command_has_its_rule_and_variables(Command("", ("make", "run", "Y=1"), True))
