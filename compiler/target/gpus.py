"""NVIDIA's architectures. No TVM here: the table of targets must load fast."""

from dataclasses import dataclass, replace

from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.errors import VitqError, nearest

KIB = 1024

ARCHITECTURES = {
    "sm_75": GpuFeatures(processors=68, shared_bytes=64 * KIB, macs=1024),
    "sm_80": GpuFeatures(processors=108, shared_bytes=96 * KIB, macs=2048),
    "sm_86": GpuFeatures(processors=82, shared_bytes=96 * KIB, macs=1024),
    "sm_87": GpuFeatures(processors=16, shared_bytes=96 * KIB, macs=2048),
    "sm_89": GpuFeatures(processors=128, shared_bytes=96 * KIB, macs=1024),
    "sm_90": GpuFeatures(132, shared_bytes=224 * KIB, macs=2048, wgmma=True, dependent=True),
    "sm_100": GpuFeatures(processors=148, shared_bytes=224 * KIB, macs=2048, dependent=True),
    "sm_120": GpuFeatures(processors=170, shared_bytes=96 * KIB, macs=1024, dependent=True),
}
"""Each with the sizes of its largest common chip, from the vendor's data sheets: they decide
defaults, and `shared_bytes` also whether another architecture's code fits
(`compiler.nvidia.driver`). `macs` is what ``mma`` reaches; Hopper's ``wgmma`` has twice as many."""
SPECIFIC = {"sm_90": "sm_90a"}
"""Machine code is made for an architecture's own instructions where it has any."""


@dataclass(frozen=True)
class Gpu:
    """What machine code is made for.

    Attributes:
        architectures: each gets machine code, oldest first; the newest also PTX, which newer
            drivers compile for newer GPUs.
        features: what the kernels may use on all of them.
    """

    architectures: tuple[str, ...]
    features: GpuFeatures

    @property
    def newest(self) -> str:
        """The last architecture."""
        return self.architectures[-1]


def gpu_of(names: tuple[str, ...]) -> Gpu:
    """Return the GPU part of a target for some architectures.

    Raises:
        VitqError: for one that is not in the table, or none.
    """
    unknown = [name for name in names if name not in ARCHITECTURES]
    if unknown or not names:
        hint = nearest(unknown[0], ARCHITECTURES) if unknown else ""
        raise VitqError(
            f"GPU architecture {', '.join(unknown) or 'missing'}{hint}: "
            f"choose from {', '.join(ARCHITECTURES)}"
        )
    ordered = tuple(name for name in ARCHITECTURES if name in names)
    every = [ARCHITECTURES[name] for name in ordered]
    features = replace(
        every[-1],
        shared_bytes=min(each.shared_bytes for each in every),
        wgmma=all(each.wgmma for each in every),
        dependent=all(each.dependent for each in every),
    )
    return Gpu(ordered, features)
