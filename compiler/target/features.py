"""What kernels may use of a processor or a GPU. No TVM: the table of targets must load fast."""

from dataclasses import dataclass

ARM_PRIMITIVES = ("smmla", "sdot", "neon", "neon-pairs")
DOT_PRIMITIVES = ("vnni512", "vnni256", "madd256", "madd128", *ARM_PRIMITIVES, "generic")


@dataclass(frozen=True)
class CpuFeatures:
    """What a kernel template may use of a processor.

    Attributes:
        dot: the 8-bit dot product primitive, one of `DOT_PRIMITIVES`.
        vector_bits: width of the vectors in kernels: one register; on ARM four, because then a
            load of bytes fills a register.
    """

    dot: str
    vector_bits: int

    def __post_init__(self) -> None:
        """Refuse what no template knows."""
        if self.dot not in DOT_PRIMITIVES:
            raise ValueError(f"dot primitive {self.dot!r}: choose from {DOT_PRIMITIVES}")
        if self.vector_bits % 128:
            raise ValueError(f"vector registers of {self.vector_bits} bits: a multiple of 128")

    @property
    def lanes(self) -> int:
        """int32 values in one register."""
        return self.vector_bits // 32

    @property
    def label(self) -> str:
        """In the name of a tuning task."""
        return f"{self.dot}/{self.vector_bits}"


@dataclass(frozen=True)
class GpuFeatures:
    """What a CUDA kernel template may use, and what its defaults are chosen for.

    Attributes:
        processors: multiprocessors of the chip.
        shared_bytes: shared memory that one block may have.
        macs: 8-bit products of a multiprocessor's tensor cores in one cycle.
        wgmma: whether it has the matrix instruction for four warps.
        dependent: whether a kernel may begin before the one in front of it is done.
    """

    processors: int
    shared_bytes: int
    macs: int
    wgmma: bool = False
    dependent: bool = False

    @property
    def dot(self) -> str:
        """Name of the family, where a processor's features name their dot product."""
        return "cuda"

    @property
    def label(self) -> str:
        """In the name of a tuning task; the same for all GPUs, so that logs can be shared."""
        return self.dot


Features = CpuFeatures | GpuFeatures
