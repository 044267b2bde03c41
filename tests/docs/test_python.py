"""Python in README and docs: the names of `vitq` and their arguments exist."""

import ast
import inspect
from collections.abc import Iterator

import pytest

import vitq
from docs.tools.api import public_names
from tests.docs.pages import FENCE, PAGES, ROOT

LIBRARY = "lib"
"""What a compiled model is called in all examples."""


def blocks() -> list[tuple[str, str]]:
    """(page, code) of every block of Python."""
    return [
        (str(page.relative_to(ROOT)), match["body"])
        for page in PAGES
        for match in FENCE.finditer(page.read_text(encoding="utf-8"))
        if match["language"] == "python"
    ]


def calls(code: str) -> Iterator[tuple[str, str, ast.Call]]:
    """(owner, name, call) of ``vitq.name(...)`` and ``lib.name(...)``."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id in ("vitq", LIBRARY):
            yield owner.id, node.func.attr, node


def check(code: str) -> None:
    """Refuse a call that Python would refuse."""
    for owner, name, call in calls(code):
        if owner == "vitq":
            assert name in public_names(), f"vitq has no {name}"
        function = getattr(vitq if owner == "vitq" else vitq.Library, name)
        given = [None] * (len(call.args) + (owner == LIBRARY))
        named = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        inspect.signature(function).bind(*given, **named)


@pytest.mark.parametrize(("page", "code"), blocks())
def test_calls_of_vitq_fit_their_signatures(page: str, code: str) -> None:
    check(code)


def test_the_readme_shows_the_api() -> None:
    shown = {name for page, code in blocks() if page == "README.md" for _, name, _ in calls(code)}
    assert {"quantize", "compile", "verify", "save", "deploy"} <= shown


def test_a_made_up_argument_is_noticed() -> None:
    with pytest.raises(TypeError, match="colour"):
        check("vitq.compile(q, colour=1)")
    with pytest.raises(AssertionError, match="no paint"):
        check("vitq.paint(q)")
