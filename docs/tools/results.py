"""Write the generated parts of README and docs: tables of results, and pictures.

A table stands between ``<!-- results: NAME -->`` and ``<!-- end -->`` in a Markdown file; `TABLES`
says how it is made. Every figure of README and of `docs/results` comes from a file in
`benchmarks/results` this way.

    python -m docs.tools.results            write
    python -m docs.tools.results --check    fail where something else stands there
"""

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs.tools import measured, overview, zoo
from docs.tools.pictures import PICTURES
from docs.tools.tables import RESULTS, ROOT, read, stated

BLOCK = re.compile(r"(<!-- results: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
IMAGES = ROOT / "docs" / "images"


def _stated_names() -> list[str]:
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    return [name for name in names if "columns" in read(name)]


TABLES: dict[str, Callable[[], str]] = {
    **{name: partial(stated, name) for name in _stated_names()},
    "cpu-latency": measured.cpu_latency,
    "cpu-latency-zen3": partial(measured.cpu_latency, "-zen3"),
    "cpu-latency-zen4": measured.zen4,
    "cpu-avx2-tuning": measured.avx2_tuning,
    "cpu-peak": measured.peak_shares,
    "gpu-latency": measured.gpu_latency,
    "gpu-peak": measured.gpu_shares,
    "gpu-rewritten": measured.gpu_rewritten,
    "gpu-launches": measured.gpu_launches,
    "readme-accuracy": overview.accuracy,
    "readme-speed": overview.speed,
    "zoo": zoo.models,
}


def pages() -> list[Path]:
    """List the Markdown files that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """Put every table of a page in its place.

    Raises:
        LookupError: for a table that does not exist.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise LookupError(f"no table is called {name}: choose from {', '.join(TABLES)}")
        return f"{match[1]}\n{TABLES[name]()}\n\n{match[3]}"

    return BLOCK.sub(table, text)


def generated() -> dict[Path, str]:
    """Make the content of every file that is generated or holds a generated table."""
    content = {page: filled(page.read_text(encoding="utf-8")) for page in pages()}
    return content | {IMAGES / name: draw() for name, draw in PICTURES.items()}


def stale() -> list[Path]:
    """List the files that differ from what the script makes."""
    return [
        path
        for path, text in generated().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on differences")
    different = stale()
    for path in different:
        print(path.relative_to(ROOT))
    if parser.parse_args().check:
        return 1 if different else 0
    IMAGES.mkdir(exist_ok=True)
    for path, text in generated().items():
        if path in different:
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
