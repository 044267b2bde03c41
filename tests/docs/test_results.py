"""Figures of README and docs: made from `benchmarks/results`, none typed by hand."""

import json
import re
from pathlib import Path

import pytest

from docs.tools import results, tables
from tests.docs.pages import ROOT, without_code

README_LINES = 150
FIGURE = re.compile(r"\d[\d.,]* ?(?:ms|us|dB|MB|GB|GiB|%|million|pictures/s)(?!\w)")
NOTES = ROOT / "docs" / "notes"
"""Single observations, which stand nowhere else."""
BARE_PAGES = [page for page in results.pages() if page.parent != NOTES]


def test_pages_are_what_the_script_makes() -> None:
    stale = [str(path.relative_to(ROOT)) for path in results.stale()]
    assert not stale, f"run python -m docs.tools.results: {stale}"


@pytest.mark.parametrize("page", BARE_PAGES, ids=lambda page: page.name)
def test_no_figure_stands_outside_of_the_tables(page: Path) -> None:
    text = without_code(results.BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert FIGURE.findall(text) == []


def test_every_file_of_results_is_shown() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in results.pages())
    names = {path.stem for path in tables.RESULTS.glob("*.json")}
    missing = {name for name in names if f"`{name}.json`" not in shown}
    assert missing <= {"peak-without-gelu"}  # a row of another file's table


def test_each_table_stands_in_one_place() -> None:
    found = [
        match["name"]
        for page in results.pages()
        for match in results.BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    assert len(found) == len(set(found))


def test_a_changed_figure_changes_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in tables.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((tmp_path / "deit_tiny-contestants.json").read_text())
    content["rows"][0]["median_ms"] = 3.77
    (tmp_path / "deit_tiny-contestants.json").write_text(json.dumps(content))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    stale = {str(path.relative_to(ROOT)) for path in results.stale()}
    assert stale == {"README.md", "docs/results/cpu.md", "docs/images/speed.svg"}


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(LookupError, match="no table is called nothing"):
        results.filled("<!-- results: nothing -->\n<!-- end -->")


def test_a_cell_without_its_fields_is_empty() -> None:
    assert tables.cell(["{share:.1%}", "{count:,}"], {"share": 0.985}) == "98.5 %"
    assert tables.cell(["{share:.1%}", "{count:,}"], {"count": 79000}) == "79,000"
    assert tables.cell(["{share:.1%}", "{count:,}"], {}) == ""


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES
