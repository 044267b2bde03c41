"""``import vitq`` costs nothing until a name is used."""

import re
import subprocess
import sys
from importlib.resources import files

import pytest

import vitq

HEAVY = ("torch", "tvm", "numpy", "timm", "onnx", "onnxruntime", "PIL", "sklearn", "typer")
LONGEST_S = 0.1
TRIES = 5


def imported(code: str) -> tuple[float, set[str]]:
    """Seconds that ``vitq`` took, and all modules that were imported."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = re.findall(r"^import time:\s*(\d+) \|\s*(\d+) \| *(\S+)$", done.stderr, re.MULTILINE)
    times = {name: int(whole) / 1e6 for _, whole, name in rows}
    return times["vitq"], set(times)


def test_it_takes_less_than_a_tenth_of_a_second() -> None:
    assert min(imported("import vitq")[0] for _ in range(TRIES)) < LONGEST_S


def test_nothing_heavy_is_loaded() -> None:
    loaded = imported("import vitq")[1]
    assert not [name for name in HEAVY if name in loaded]
    assert "numpy" in imported("import vitq; vitq.quantize")[1]  # the test can fail


def test_an_error_is_caught_without_loading_anything_heavy() -> None:
    code = "import vitq\ntry: vitq.nothing\nexcept (vitq.VitqError, AttributeError): pass"
    assert not set(HEAVY) & imported(code)[1]


@pytest.mark.parametrize("name", vitq.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    assert (getattr(vitq, name).__doc__ or "").strip() and name in dir(vitq)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vitq' has no attribute 'quantise'"):
        _ = vitq.quantise  # type: ignore[attr-defined]


def test_type_checkers_read_the_annotations() -> None:
    assert (files("vitq") / "py.typed").is_file()
