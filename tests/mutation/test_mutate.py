"""The mutants that are made, and that each explained one still exists."""

from pathlib import Path

import pytest

from tests.mutation.mutate import Mutant, mutants
from tests.mutation.run import EXPLAINED, ROOT, covering, explained, modules

SOURCE = '''
"""Text stays: 1 + 1."""
LIMIT: int = 3


def proven(x: int, y: int) -> list[int]:
    """Text stays."""
    if x < LIMIT and not y:
        raise ValueError(f"{x + 1}")
    x += abs(y) >> 2
    return [x * y, -max(x, y)]
'''
CHANGES = {
    "3 -> 4", "3 -> 2", "x < LIMIT -> x <= LIMIT", "x < LIMIT and (not y) -> x < LIMIT or not y",
    "not y -> y", "if x < LIMIT and (not y): -> (deleted)", "x += abs(y) >> 2 -> (deleted)",
    "raise ValueError(f'{x + 1}') -> (deleted)", "x += abs(y) >> 2 -> x -= abs(y) >> 2",
    "abs(y) >> 2 -> abs(y) << 2", "2 -> 3", "2 -> 1", "abs(y) -> negative(y)",
    "[x * y, -max(x, y)] -> [-max(x, y)]", "[x * y, -max(x, y)] -> [x * y]", "x * y -> x // y",
    "-max(x, y) -> max(x, y)", "max(x, y) -> min(x, y)",
}  # fmt: skip


def test_each_operator_makes_its_mutants() -> None:
    made = dict(mutants("a.py", SOURCE))
    assert {str(m).partition(": ")[2].removesuffix(" [0]") for m in made} == CHANGES
    assert {mutant.where for mutant in made} == {"module", "proven"}
    for tree in made.values():
        compile(tree, "a.py", "exec")


def test_a_mutant_differs_in_one_place() -> None:
    import ast

    original = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant, tree in mutants("a.py", SOURCE):
        changed = ast.unparse(tree).splitlines()
        lines = set(original) ^ set(changed)
        assert lines, mutant
        assert len(lines) <= 3


def test_equal_changes_of_one_function_have_numbers() -> None:
    made = [mutant for mutant, _ in mutants("a.py", "def f(x):\n    return (x + 1) * (x + 1)\n")]
    assert [m.number for m in made if m.before == "x + 1"] == [0, 1]
    assert len(set(made)) == len(made)


def test_every_module_has_tests() -> None:
    found = modules()
    assert {"numerics/shiftmax.py", "relay_passes/check_accumulators.py"} <= set(found)
    for file in found:
        own, every = covering(file)
        assert set(own) <= set(every) and all(Path(path).is_file() for path in every)


@pytest.mark.parametrize("mutant", explained(), ids=str)
def test_an_explained_mutant_exists(mutant: Mutant) -> None:
    assert explained()[mutant], EXPLAINED
    source = (ROOT / mutant.file).read_text()
    assert mutant in dict(mutants(mutant.file, source)), "remove it from the list"
