"""How time grows with the picture, and the benchmark's plots."""

from pathlib import Path
from typing import Any

import pytest

from vitq.compiler.benchmark import benchmark as stage
from vitq.compiler.benchmark import scaling
from vitq.compiler.benchmark.peak import Peak
from vitq.compiler.benchmark.profiling import KernelRow, Profile
from vitq.compiler.benchmark.rounds import Row
from vitq.compiler.benchmark.sized import sized_name
from vitq.compiler.cli import benchmark_plots as plots
from vitq.compiler.support.artifacts import Artifact
from vitq.numerics.errors import VitqError


def synthetic_profile(tokens: int, linear_us: float, attention_us: float) -> Profile:
    linear = (1, tokens, 192), (1, tokens, 576)
    attention = (1, tokens, 3, 3, 64), (1, tokens, 3, 64)
    rows = [
        KernelRow("linear_0", "linear", 2, linear_us, linear_us, 1000 * tokens, 10, linear),
        KernelRow(
            "attention_0", "attention", 1, attention_us, attention_us, tokens**2, 10, attention
        ),
        KernelRow("add_0", "elementwise", 1, 1.0, 1.0, 0, 10, linear),
    ]
    return Profile("model.so", 1, 1, 1.0, Peak(500.0, 40.0, 200.0), rows)


def test_fits_of_known_growth() -> None:
    profiles = [synthetic_profile(n, 3.0 * n, 0.5 * n * n) for n in (197, 362, 577)]
    fits = {fit.family: fit for fit in scaling.fit_all(profiles)}
    assert fits["linear"].exponent == pytest.approx(1)
    assert fits["linear"].expected == pytest.approx(1)
    assert fits["linear"].line_deviation == pytest.approx(0, abs=1e-9)
    assert fits["attention"].exponent == pytest.approx(2)
    assert fits["attention"].line_deviation > 0.3
    assert fits["elementwise"].expected is None
    assert [p.tokens for p in profiles] == [197, 362, 577]


def test_models_of_other_picture_sizes(artifact: Artifact) -> None:
    from vitq.quantization.model.models import load_model

    loaded = load_model(sized_name("digits_vit", 16), seed=0)
    assert loaded.preprocessing.input_shape == (3, 16, 16)
    assert sized_name(sized_name("digits_vit", 16), 24) == sized_name("digits_vit", 24)
    with pytest.raises(VitqError, match="picture sizes"):
        sized_name("my.package:factory", 224)
    with pytest.raises(VitqError, match="17 x 17"):
        load_model(sized_name("digits_vit", 17), seed=0)


def test_scaling_of_the_embedded_model(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated = stage.isolated

    def faster(function: Any, *arguments: Any) -> Any:
        """Only what pins its process needs one of its own."""
        own = function is scaling.compile_sized
        return function(*arguments) if own else isolated(function, *arguments)

    monkeypatch.setattr(stage, "isolated", faster)
    result = scaling.measure_scaling(artifact, "cpu", (16, 32), 1)
    small, large = result.profiles
    assert small.tokens < large.tokens
    by_family = {fit.family: fit for fit in result.fits}
    assert by_family["linear"].expected == pytest.approx(1, abs=0.2)
    assert len(result.to_json()["points"]) == 2


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra vitq[benchmark] is not installed")
    rows = [
        Row(name, batch, 1, 2.0, 1.5, 3.0, 500.0, 100.0, 20.0, 6.0, 40, 0.0)
        for name in ("vitq-int8-tuned", "torch-fp32")
        for batch in (1, 8)
    ]
    plots.plot_rows(rows, {"processor": "test"}, tmp_path / "bars.png", "a model")
    profile = synthetic_profile(197, 50.0, 60.0)
    plots.plot_roofline(profile, {"processor": "test"}, tmp_path / "roofline.png", "a model")
    for name in ("bars", "roofline"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
