"""Parity of networks that amplify roundings, and of files that compute something else."""

import logging
from pathlib import Path

import numpy as np
import pytest

from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import Artifact
from vitq.export import parity
from vitq.numerics.errors import VitqError


@pytest.fixture
def narrow(tmp_path: Path) -> Artifact:
    """Quantized to 3 bits with a method that is too simple for it."""
    options = QuantizeOptions.parse(artifacts=tmp_path, recipe="w3a3", method="minmax")
    return quantize(options)


def test_rounding_that_a_network_amplifies_is_no_error(
    narrow: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the logits depend on rounding is what float64 shows."""
    monkeypatch.setattr(parity, "MIN_COSINE", 2.0)  # so that float64 is asked in any case
    with caplog.at_level(logging.WARNING):
        found = export(narrow)["parity"]
    assert 0.99 < found["float64_cosine"] <= 1 + 1e-12
    assert found["mean_cosine"] >= 1 - 3 * (1 - found["float64_cosine"]) - 1e-12
    assert "rounding alone changes this network's logits" in caplog.text


def test_a_file_that_computes_something_else_is_refused(
    narrow: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parity.run_onnx
    monkeypatch.setattr(parity, "run_onnx", lambda *args: np.roll(run(*args), 1, axis=1))
    with pytest.raises(VitqError, match="does not compute what PyTorch does: mean cosine"):
        export(narrow)
    assert not narrow.export_json.exists()
