"""Which dot product primitive a processor has."""

from dataclasses import replace

from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.dot_arm import arm_dot, pairs_fit
from vitq.compiler.kernels.cpu.dot_x86 import Generic, Madd, Vnni
from vitq.compiler.target.features import ARM_PRIMITIVES, CpuFeatures
from vitq.numerics.arrays import IntArray


def features_for_weights(features: CpuFeatures, packed: IntArray) -> CpuFeatures:
    """Choose the primitive that constant weights, as multiplied, allow: ``neon-pairs``."""
    if features.dot != "neon":
        return features
    return replace(features, dot="neon-pairs") if pairs_fit(packed) else features


def dot_for(features: CpuFeatures) -> Dot:
    """Return the primitive for a processor."""
    if features.dot in ARM_PRIMITIVES:
        return arm_dot(features)
    return _DOTS.get(features.dot) or Generic(features.lanes, 1, 16, a_offset=0, b_signed=False)


_DOTS = {
    "vnni512": Vnni(16, 4, 32, 128, True, split=True, spare=1, latency=5),
    "vnni256": Vnni(8, 4, 16, 128, True, split=True, spare=1, latency=5),
    "madd256": Madd(8, 2, 16, 0, False, split=True, spare=2),
    "madd128": Madd(4, 2, 16, 0, False, spare=2),
}
