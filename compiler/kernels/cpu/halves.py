"""Which 16-bit arithmetic a processor has."""

from vitq.compiler.kernels.cpu.fixed import Halves, Halves256, Halves512
from vitq.compiler.kernels.cpu.fixed_arm import NeonHalves
from vitq.compiler.target.features import ARM_PRIMITIVES, CpuFeatures


def halves_for(features: CpuFeatures) -> Halves | None:
    """Return the 16-bit form of a processor, where there is one."""
    if features.dot in ARM_PRIMITIVES:
        return NeonHalves(2 * features.lanes)
    if features.dot == "vnni512":
        return Halves512()
    return Halves256() if features.dot in ("vnni256", "madd256") else None
