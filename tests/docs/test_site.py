"""The site builds without warnings, and its pages fetch nothing."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.hooks import as_markdown, expanded
from tests.docs.pages import ROOT

NEEDED = ("mkdocs", "material", "mkdocstrings")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
FETCHED = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(https?:[^\">\s]+)")


@pytest.mark.skipif(bool(MISSING), reason=f'no {MISSING}: pip install -e ".[docs]" brings them')
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert FETCHED.findall(text) == [], page
        assert 'class="mermaid"' not in text  # the theme would fetch its renderer
        assert "&lt;!-- " not in text and "<!-- commands" not in text


def test_markers_are_filled_in() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        text = expanded(path.read_text(encoding="utf-8"))
        left = set(re.findall(r"<!-- (?!results: |end )(.+?) -->", text))
        assert not left, path


def test_a_docstring_becomes_text_and_code() -> None:
    docstring = "One. With 2**-f.\n\n    a * b\n\n    c\n\nNow `x * y`:\n    d"
    assert as_markdown(docstring) == (
        "One. With 2\\*\\*-f.\n\n```\na * b\n```\n\n```\nc\n```\n\nNow `x * y`:\n\n```\nd\n```"
    )
