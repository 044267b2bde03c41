"""A short run over every parser, and every failure of the past."""

import pytest

from tests.fuzz.fuzzing import CORPUS, SlowError, damaged, fuzz, read
from tests.fuzz.parsers import PARSERS, Parser

SEED = 20_241
TRIES = dict.fromkeys(PARSERS, 60) | {"onnx": 40, "float-onnx": 40}
PAST = sorted(
    path for name in PARSERS for path in (CORPUS / name).glob("*") if not path.name.startswith(".")
)


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_are_taken_or_refused(name: str) -> None:
    figures = fuzz(name, (damaged(name, SEED, index) for index in range(TRIES[name])))
    assert figures.failures == {}
    assert figures.tries == TRIES[name] and figures.refused > TRIES[name] // 10


@pytest.mark.parametrize("name", PARSERS)
def test_good_files_are_taken(name: str) -> None:
    assert any(read(name, content) for content in PARSERS[name].seeds()) or name == "log"


@pytest.mark.parametrize("path", PAST, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_failures_of_the_past(path) -> None:  # type: ignore[no-untyped-def]
    read(path.parent.name, path.read_bytes())


def test_the_harness_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path) -> None:  # type: ignore[no-untyped-def]
        raise KeyError("a traceback")

    def slow(path) -> None:  # type: ignore[no-untyped-def]
        raise SlowError

    def leaving(path) -> None:  # type: ignore[no-untyped-def]
        path.with_name(".half-written").touch()

    for wrong in (broken, slow, leaving):
        parser = Parser(".x", lambda: [b"x"], lambda data, _: data, wrong)
        monkeypatch.setitem(PARSERS, "wrong", parser)
        assert len(fuzz("wrong", iter([b"x"])).failures) == 1
