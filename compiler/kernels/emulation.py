"""What the emulators of processors and of GPUs share."""

from vitq.numerics.errors import VitqError


class EmulationError(VitqError):
    """The kernel does what no kernel may do."""
