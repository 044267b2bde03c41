"""The study on the embedded model: causes are named, reports stand alone."""

import copy
import html.parser
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vitq
from vitq.compiler.cli import main as cli
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.studies.explain import block_of, explain
from vitq.compiler.studies.explain_page import write_explanation
from vitq.compiler.studies.explanation import Changed, Explanation, LayerCost, NodeFigures, Variant
from vitq.compiler.studies.findings import findings
from vitq.compiler.studies.wider import dearest, write_wider
from vitq.models.digits_vit.data import load_digits_split
from vitq.numerics.errors import VitqError
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.graph import Graph
from vitq.quantization.model.given import GivenModel
from vitq.quantization.plan.recipe import Recipe

VOID = {"meta", "img", "input", "br"}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """W4/A4 by minmax."""
    options = QuantizeOptions.parse(
        recipe="w4a4", method="minmax", calib_count=8, artifacts=tmp_path_factory.mktemp("narrow")
    )
    return quantize(options).folder


@pytest.fixture(scope="module")
def found(narrow: Path) -> Explanation:
    return explain(narrow, count=24, removals=4)


def test_every_node_and_rounding_has_its_figures(found: Explanation) -> None:
    assert (found.pictures, found.model, found.settings["recipe"]) == (24, "digits_vit", "w4a4")
    assert found.float_top1 is not None and found.float_top1 >= 23
    assert 5 < found.sqnr_db < 30 and found.agreement <= 1
    assert len({node.name for node in found.nodes}) == len(found.nodes) > 50
    modules = {node.module for node in found.nodes}
    assert {"patch_embed.proj", "blocks.3.mlp.fc2", "head"} <= modules
    assert {node.block for node in found.nodes} >= {"blocks.0", "blocks.3", "head", "patch_embed"}
    (fc2,) = (node for node in found.nodes if node.module == "blocks.3.mlp.fc2")
    assert re.search(r"model\.py:\d+$", fc2.source)
    assert {cost.bits for cost in found.layers} == {4, 8}
    shares = [cost.share for cost in found.layers]
    assert shares == sorted(shares, reverse=True)


def test_narrow_activations_are_the_cause_at_w4a4(found: Explanation) -> None:
    (line,) = (line for line in found.findings if "Activations of 4 bits" in line)
    assert "8 bits (--wider writes the recipe), or use --method best" in line
    assert not any("Ranges" in line or "Integer Softmax" in line for line in found.findings)
    inputs = [cost for cost in found.layers if cost.part == "activation"]
    assert f"{inputs[0].module} (alone {inputs[0].alone_db:.1f} dB)" in line


def test_published_nonlinear_forms_are_the_cause_with_ivit(tmp_path: Path) -> None:
    options = QuantizeOptions.parse(nonlinear="ivit", calib_count=8, artifacts=tmp_path)
    found = explain(quantize(options).folder, count=8, removals=4)
    cause = found.findings[-1]
    assert cause.startswith("Integer Softmax, GELU or LayerNorm: ") and "softmax (" in cause
    assert "Remedy: --nonlinear vitq" in cause


def test_ranges_of_other_pictures_are_the_cause(tmp_path: Path) -> None:
    """Calibrated on pictures of half the contrast, with ranges that clip all else."""
    dim = load_digits_split().train.images[:16] // 4
    np.save(tmp_path / "dim.npy", dim)
    options = QuantizeOptions.parse(
        calib=str(tmp_path / "dim.npy"), method="minmax", calib_count=16, artifacts=tmp_path
    )
    found = explain(quantize(options).folder, count=8, removals=2)
    (line,) = (line for line in found.findings if line.startswith("Ranges: "))
    assert "% clipped" in line and f"16 of {tmp_path}" in line
    assert not any("--wider" in line for line in found.findings)


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.links += [str(facts[k]) for k in ("src", "href", "action", "data") if k in facts]
        self.ids += [str(facts["id"])] if "id" in facts else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file(found: Explanation, tmp_path: Path) -> None:
    changed = [Changed(3, "a<b>.png", 7, 7, 0.9, 1, 0.6), Changed(4, "", None, 2, 0.5, 3, 0.6)]
    shown = [np.full((3, 32, 32), 9, np.uint8), np.zeros((1, 300, 200), np.uint8)]
    written = replace(found, changed=changed, shown=shown, model="<b>&'", class_names={7: "<i>"})
    path = tmp_path / "report.html"
    write_explanation(written, path)
    text = path.read_text("utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [] and len(page.ids) == len(set(page.ids)) > 5
    assert len(page.links) == 2 and all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "<b>&'" not in text and "&lt;b&gt;&amp;&#x27;" in text
    assert "a&lt;b&gt;.png" in text and "float: 7 &lt;i&gt; (90 %)" in text and "picture 4" in text
    assert "prefers-color-scheme: dark" in text
    assert all(node.name in text for node in found.nodes)
    assert len(text) < 400_000
    assert ">1 node<" in text and ">1 nodes<" not in text
    mine = replace(found.nodes[0], source="/home/me/own/models/vit.py:7")
    write_explanation(replace(found, nodes=[mine]), path)
    assert "/home/me" not in path.read_text() and "own/models/vit.py:7" in path.read_text()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vitq", "explain", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_prints_a_table_json_and_a_page(
    narrow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [str(narrow), "--count", "2", "--removals", "0"]
    page = tmp_path / "page.html"
    assert call(monkeypatch, *few, "--html", str(page)) == 0
    text = capsys.readouterr().out
    assert "worst of" in text and "blocks." in text and str(page) in text and page.is_file()
    assert call(monkeypatch, *few, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["pictures"] == 2 and content["layers"] == content["variants"] == []
    assert len(content["nodes"]) > 50 and "shown" not in content


def test_a_wider_recipe_is_written_and_mends(found: Explanation, tmp_path: Path) -> None:
    path = tmp_path / "wider.json"
    write_wider(found, path)
    recipe = Recipe.parse(str(path))
    chosen = dearest(found.layers)
    assert 0.5 <= sum(c.share for c in chosen) / sum(c.share for c in found.layers if c.bits < 8)
    assert {bits.layer for bits in recipe.layers} == {cost.module for cost in chosen}
    assert all(8 in bits[1:] for bits in recipe.layers) and recipe.weight_bits == 4
    options = QuantizeOptions.parse(
        recipe=str(path), method="minmax", calib_count=8, artifacts=tmp_path
    )
    mended = explain(quantize(options).folder, count=4, removals=4)
    assert mended.variants[0].sqnr_db > found.variants[0].sqnr_db + 1
    with pytest.raises(VitqError, match="no layer to widen: leave out --removals 0"):
        write_wider(replace(found, layers=[]), path)
    wide = replace(found, layers=[replace(c, bits=8) for c in found.layers])
    with pytest.raises(VitqError, match="no layer to widen: every layer has 8 bits"):
        write_wider(wide, path)


def test_refusals_name_the_remedy(
    narrow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, message in (
        (["--html", "report.txt"], "--html report.txt: give a file name that ends in .html"),
        (["--html", str(tmp_path / "no" / "x.html")], "does not exist: make it first"),
        (["--wider", "w8a8"], "--wider w8a8: a recipe's file is called NAME.json"),
        (["--removals", "-1"], "--removals -1: give a number of pictures, or 0 for none"),
    ):
        assert call(monkeypatch, str(narrow), *arguments) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(VitqError, match="the float model behind a foreign file is unknown"):
        explain(tmp_path)
    stored = storage.load(narrow)
    for key, value, message in (
        ("model", "theirs", "no pictures to explain with: pass --pictures"),
        ("module", "0" * 64, "was in memory and no file holds it: explain it in Python"),
    ):
        facts = {**stored.provenance, key: value}
        storage.save(tmp_path / key, replace(stored, provenance=facts))
        with pytest.raises(VitqError, match=message):
            explain(tmp_path / key, count=1, removals=0)


def test_a_model_in_hand_is_explained(tmp_path: Path) -> None:
    from vitq.models.digits_vit import MEAN, STD
    from vitq.quantization.model.models import load_model

    model, pixels = load_model("digits_vit").module, load_digits_split().train.images[:4]
    facts = {"image_size": 32, "mean": MEAN, "std": STD}
    q = vitq.quantize(model, pixels, method="minmax", **facts)  # type: ignore[arg-type]
    report = tmp_path / "report.html"
    found = vitq.explain(q, pixels, [0, 1, 2, 3], removals=0, html=report)
    assert found.pictures == 4 and found.float_top1 is not None and report.is_file()
    with pytest.raises(VitqError, match="in memory"):
        vitq.explain(q.folder, pixels)
    model.head.bias.data += 1  # type: ignore[operator, union-attr]
    q._module = type(q._module).of(model) if q._module else None
    with pytest.raises(VitqError, match="was not quantized from this model"):
        vitq.explain(q, pixels, removals=0)


def test_other_models_than_the_quantized_one_are_refused(
    narrow: Path, digits_model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = GivenModel.of(digits_model)
    assert explain(narrow, count=1, removals=0, module=same).pictures == 1
    other = copy.deepcopy(digits_model)
    other.head.bias.data += 1  # type: ignore[operator, union-attr]
    with pytest.raises(VitqError, match="was not quantized from this model"):
        explain(narrow, count=1, removals=0, module=GivenModel.of(other))

    def align(exact: Graph, _: Graph) -> Graph:
        exact.set_param(exact.nodes["linear_4"], "bias", np.ones(192, np.float32))
        return exact

    monkeypatch.setattr("vitq.quantization.explain.alignment.align", align)
    with pytest.raises(VitqError, match="cannot be brought to the quantized one's scales"):
        explain(narrow, count=1, removals=0)


def figures(name: str, own: float, lost: float) -> NodeFigures:
    reach = (-1.0, 1.0)
    return NodeFigures(name, name, "gelu", "", "", 8, own, own, 1.0, (-3.0, 3.0), reach, 0.1, lost)


@pytest.mark.parametrize(
    ("lost", "bits", "expected"),
    [
        (0.9, 8, ["Ranges: 1 quantizers", "Mend the ranges above first."]),
        (0.1, 4, ["Remedy: give these layers 8 bits"]),
        (0.1, 8, ["These are the widest: calibrate with more pictures, or use --method best."]),
    ],
)
def test_remedies_fit_their_causes(
    found: Explanation, lost: float, bits: int, expected: list[str]
) -> None:
    db = {"nothing": 5, "integer operators": 5, "weights": 5.2, "activations": 30}
    variants = [Variant(name, value, 0.5) for name, value in db.items()]
    layers = [LayerCost("gelu", "gelu", "activation", bits, 0.6, 4.0, 0.5, 1)]
    case = replace(
        found, agreement=0.5, float_top1=None, variants=variants, layers=layers,
        nodes=[figures("gelu", 8.0, lost)],
    )  # fmt: skip
    lines = findings(case)
    assert len(lines) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True))
    good = findings(
        replace(case, agreement=1.0, sqnr_db=30.0, nodes=[], float_top1=24, integer_top1=24)
    )
    assert "not at quantization" in good[0] and "Quantization costs little" in good[1]


def test_blocks_are_those_of_the_model() -> None:
    names = {
        "blocks.11.attn: exp": "blocks.11",
        "vit.encoder.layer.0.output.dense": "vit.encoder.layer.0",
        "head": "head",
        "patch_embed.proj": "patch_embed",
        "linear_5": "linear_5",
    }
    assert {label: block_of(label) for label in names} == names
