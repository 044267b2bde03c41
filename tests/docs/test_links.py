"""Links of README and docs: the file is there, and the heading in it."""

import re
from pathlib import Path

import pytest

from docs.tools.hooks import expanded
from tests.docs.pages import PAGES, ROOT, without_code

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
FOLDERS = "benchmarks|compiler|docs|export|models|numerics|quantization|relay_passes|tests"
PATH = re.compile(rf"`(?P<path>(?:{FOLDERS}|tuning_logs)/[\w./-]*\w(?:\.\w+)?/?)`")
HEADING = re.compile(r"^#{1,6} +(?P<title>.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them of simple headings."""
    text = without_code(page.read_text(encoding="utf-8"))
    if "docs" in page.parts and "<!-- numerics" in text:
        text = expanded(text)
    titles = (match["title"].strip().lower() for match in HEADING.finditer(text))
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title)) for title in titles}


def broken(page: Path, text: str) -> list[str]:
    """The links that lead nowhere."""
    found = []
    for match in LINK.finditer(without_code(text)):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            found.append(match["target"])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it tells of its time
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_broken_link_is_noticed() -> None:
    readme = ROOT / "README.md"
    assert broken(readme, "[a](docs/none.md) [b](docs/guide/deploy.md#none)") == [
        "docs/none.md",
        "docs/guide/deploy.md#none",
    ]
