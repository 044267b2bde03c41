"""How time grows with the number of tokens: the same model at several picture sizes.

Linear layers do work proportional to the tokens N, attention's products to N squared. The fit is
``time = c N**p`` by least squares on logarithms; `Fit.line_deviation` says how far the times are
from a straight line through the origin.
"""

import logging
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.benchmark.isolation import isolated
from vitq.compiler.benchmark.prepare import FOLDER
from vitq.compiler.benchmark.profiling import Profile, profile
from vitq.compiler.benchmark.sized import sized_name
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.support.limits import usable_cores
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically

logger = logging.getLogger(__name__)

CALIBRATION_PICTURES = 2
SEED = 0


@dataclass(frozen=True)
class Fit:
    """How one family's times grow with the tokens.

    Attributes:
        family: of kernels, or ``latency`` for whole runs.
        exponent: p of ``c N**p``.
        expected: the exponent of the number of operations, by the same fit; None without any.
        line_deviation: the largest relative distance from the best line through the origin.
    """

    family: str
    exponent: float
    expected: float | None
    line_deviation: float


@dataclass(frozen=True)
class Scaling:
    """Profiles at several picture sizes and their fits."""

    sizes: tuple[int, ...]
    profiles: list[Profile]
    fits: list[Fit]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        points = [
            {
                "image_size": size,
                "tokens": p.tokens,
                "latency_ms": p.latency_ms,
                "families_ms": p.families_ms(),
                "families_mac": p.families_mac(),
            }
            for size, p in zip(self.sizes, self.profiles, strict=True)
        ]
        return {"points": points, "fits": [asdict(fit) for fit in self.fits]}


def measure_scaling(
    artifact: Artifact, target: str, sizes: tuple[int, ...], threads: int
) -> Scaling:
    """Quantize, compile and profile the artifact's model at each size, with random weights.

    Args:
        artifact: names the model; must be a timm name or the embedded one.
        target: to compile for.
        sizes: of square pictures, two or more.
        threads: of the library.

    Raises:
        VitqError: too few sizes, or a model that has no other sizes.
    """
    check_sizes(sizes)
    model = _model_of(artifact)
    profiles = []
    for size in sizes:
        logger.info("benchmark: %s at %d x %d", model, size, size)
        folder = isolated(compile_sized, artifact, model, target, size)
        profiles.append(isolated(profile, folder, threads, usable_cores(threads)))
    return Scaling(sizes, profiles, fit_all(profiles))


def check_sizes(sizes: tuple[int, ...]) -> None:
    """Refuse what cannot be fitted."""
    if len(set(sizes)) < 2 or min(sizes) < 1:
        raise VitqError("--scaling: give two picture sizes or more, with commas: 224,304,384")


def compile_sized(artifact: Artifact, model: str, target: str, size: int) -> Path:
    """Compile a model at a picture size; stages that are up to date are kept."""
    from vitq.compiler.stages.compile import CompileOptions, compile_model
    from vitq.compiler.stages.export import export
    from vitq.compiler.stages.quantize import quantize
    from vitq.compiler.stages.quantize_options import QuantizeOptions

    root = artifact.folder / FOLDER / "scaling"
    noise = np.random.default_rng(SEED).integers(
        0, 256, (CALIBRATION_PICTURES, 3, size, size), dtype=np.uint8
    )
    pictures = root / f"noise-{size}.npy"
    buffer = BytesIO()
    np.save(buffer, noise)
    write_atomically(pictures, buffer.getvalue())
    options = QuantizeOptions(
        model=sized_name(model, size),
        random_weights=SEED,
        calib=str(pictures),
        calib_count=CALIBRATION_PICTURES,
        artifacts=root,
    )
    sized = quantize(options)
    export(sized)
    return compile_model(sized.folder, CompileOptions(target=get_target(target)))


def _model_of(artifact: Artifact) -> str:
    from vitq.quantization.graph import artifact as storage

    if artifact.is_foreign:
        raise VitqError("--scaling: a QDQ file from elsewhere has one picture size")
    name = str(storage.load(artifact.folder).provenance["model"])
    sized_name(name, 1)  # refused now rather than after a calibration
    return name


def fit_all(profiles: list[Profile]) -> list[Fit]:
    """Fit the times of whole runs and of each family."""
    tokens = [p.tokens for p in profiles]
    families = sorted({family for p in profiles for family in p.families_ms()})
    fits = [fit("latency", tokens, [p.latency_ms for p in profiles], None)]
    for family in families:
        times = [p.families_ms().get(family, 0.0) for p in profiles]
        macs = [float(p.families_mac().get(family, 0)) for p in profiles]
        fits.append(fit(family, tokens, times, macs if all(macs) else None))
    return fits


def fit(family: str, tokens: list[int], times: list[float], work: list[float] | None) -> Fit:
    """Fit ``times`` (and ``work``) over ``tokens``."""
    n, t = np.asarray(tokens, np.float64), np.asarray(times, np.float64)
    slope = float(n @ t / (n @ n))
    deviation = float(np.max(np.abs(t / (slope * n) - 1)))
    expected = None if work is None else _exponent(n, np.asarray(work))
    return Fit(family, _exponent(n, t), expected, deviation)


def _exponent(n: Any, values: Any) -> float:
    return float(np.polyfit(np.log(n), np.log(values), 1)[0])
