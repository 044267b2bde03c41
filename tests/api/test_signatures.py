"""The public API changes only on purpose: with its manifest."""

import inspect
import re
from pathlib import Path

import pytest

import vitq
from tests.api.signatures import signatures

MANIFEST = Path(__file__).with_name("signatures.txt")
FUNCTIONS = [name for name in vitq.__all__ if inspect.isfunction(getattr(vitq, name))]
METHODS = [
    f"{name}.{method}"
    for name in ("Quantized", "Library")
    for method, member in vars(getattr(vitq, name)).items()
    if inspect.isfunction(member) and (not method.startswith("_") or method == "__call__")
]


def test_the_manifest_is_up_to_date() -> None:
    assert list(signatures()) == MANIFEST.read_text().splitlines(), (
        "the public API changed: python -m tests.api.signatures > tests/api/signatures.txt, and a "
        "line in CHANGELOG.md"
    )


@pytest.mark.parametrize("path", [*FUNCTIONS, *METHODS])
def test_each_function_says_what_it_takes_and_raises(path: str) -> None:
    function = vitq
    for part in path.split("."):
        function = getattr(function, part)
    text, found = inspect.getdoc(function) or "", inspect.signature(function)  # type: ignore[arg-type]
    names = [name for name in found.parameters if name != "self"]
    missing = [name for name in names if not re.search(rf"^ +{name}: ", text, re.MULTILINE)]
    assert not missing, missing
    sections = ["Returns:", "Example:"] + ["Args:"] * bool(names) + ["Raises:"] * bool(names)
    assert not [section for section in sections if section not in text]
