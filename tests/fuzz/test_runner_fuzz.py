"""A short run of `tests.fuzz.runner_fuzz`, and that it finds what there is to find."""

from pathlib import Path

import pytest

from tests.fuzz.runner_fuzz import Finding, build, inputs, read, seeds
from tests.sharing import made_once, session_folder

MUTATIONS = 250


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The readers under sanitizers; not optimized, for that is compiled sooner."""
    folder = session_folder(tmp_path_factory) / "readers"
    return made_once(folder, lambda new: build(new / "readers", options=("-O0",))) / "readers"


@pytest.mark.parametrize("kind", ["e", "m", "n", "p"])
def test_bad_inputs_are_refused(program: Path, tmp_path: Path, kind: str) -> None:
    found = read(program, kind, inputs(kind, MUTATIONS, seed=0), tmp_path)
    assert not found, f"{found[0].content!r}\n{found[0].said}"


def test_a_seed_decides_every_input() -> None:
    assert {letter for letter, _ in seeds()} == set("emnp")
    for kind in "emnp":
        first = inputs(kind, 40, seed=3)
        assert first == inputs(kind, 40, seed=3) != inputs(kind, 40, seed=4)
        assert len(set(first)) > len(first) // 2


def test_what_is_wrong_is_found(program: Path, tmp_path: Path) -> None:
    """An unknown kind aborts: it is noticed, and the inputs behind it are read."""
    contents = [b"one", b"two", b"three"]
    found = read(program, "x", contents, tmp_path)
    assert [finding.content for finding in found] == contents
    assert all(isinstance(finding, Finding) and finding.kind == "x" for finding in found)
