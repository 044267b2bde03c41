"""docs/reference/artifacts.md names every field that the stages write, and none besides."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitq.compiler.deploy.bundle import Bundle
from vitq.compiler.support.artifacts import Artifact

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "artifacts.md"
SECTION = re.compile(r"^## (?P<title>\S+)\n(?P<body>.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
FIELDS = re.compile(r"^\| (?P<names>`[^|]+) \|", re.MULTILINE)


def documented(title: str) -> set[str]:
    """The fields in the first column of a section's tables."""
    sections = {match["title"]: match["body"] for match in SECTION.finditer(PAGE.read_text())}
    rows = FIELDS.findall(sections[title])
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)} - {
        "provenance",
        "nodes",
    }


def keys(content: dict[str, Any]) -> set[str]:
    """All but the two that have tables of their own."""
    return set(content) - {"provenance", "nodes"}


def test_quantize_json(artifact: Artifact) -> None:
    content = json.loads((artifact.folder / "quantize.json").read_text())
    written = keys(content) | set(content["provenance"]) | set(content["nodes"][0])
    assert documented("quantize.json") == written
    for name in (*content["provenance"]["recipe"], *next(iter(content["qparams"].values()))):
        assert f"`{name}`" in PAGE.read_text()


def test_export_json(artifact: Artifact) -> None:
    content = json.loads(artifact.export_json.read_text())
    assert documented("export.json") == set(content)
    for name in content["parity"]:
        assert f"`{name}`" in PAGE.read_text()


def test_metadata_json(compiled: Path) -> None:
    content = json.loads((compiled / "metadata.json").read_text())
    assert documented("metadata.json") == set(content)
    inner = (content["inputs"], content["outputs"], content["accumulators"], content["schedules"])
    for name in {name for entries in inner for name in entries[0]}:
        assert f"`{name}`" in PAGE.read_text()


def test_golden_npz(compiled: Path) -> None:
    with np.load(compiled / "golden.npz") as golden:
        assert documented("golden.npz") == set(golden)


@pytest.mark.parametrize("flavour", ["vm", "static"])
def test_manifest_json(bundles: dict[str, Bundle], flavour: str) -> None:
    content = bundles[flavour].manifest
    assert documented("manifest.json") == set(content)
    for name in (*content["files"][0], *content["memory"]):
        assert f"`{name}`" in PAGE.read_text()
