"""What all widths of a model together may cost; light, so that its name is told without torch."""

from collections.abc import Iterable
from dataclasses import dataclass

from vitq.numerics.errors import VitqError
from vitq.quantization.mixed.costs import PACKED_BITS
from vitq.quantization.plan.widths import FULL_BITS, PARTS, WEIGHT


@dataclass(frozen=True)
class Budget:
    """A limit for all layers together: one of the two.

    Attributes:
        size_bytes: of the packed weights.
        bit_operations: BitOps of one picture.
    """

    size_bytes: int | None = None
    bit_operations: int | None = None

    def __post_init__(self) -> None:
        """Refuse both, none, and what is not positive."""
        given = [v for v in (self.size_bytes, self.bit_operations) if v is not None]
        if len(given) != 1:
            raise VitqError("recipe mixed: give one of --budget-bytes and --budget-bitops")
        if given[0] <= 0:
            raise VitqError(f"a budget of {given[0]}: give a positive number")

    @property
    def parts(self) -> tuple[str, ...]:
        """Whose widths it limits."""
        return (WEIGHT,) if self.size_bytes is not None else PARTS

    def widths(self, widths: Iterable[int]) -> tuple[int, ...]:
        """Those that cost less than 8 bits."""
        limit = PACKED_BITS if self.size_bytes is not None else FULL_BITS - 1
        return tuple(bits for bits in widths if bits <= limit)

    @property
    def label(self) -> str:
        """What the recipe is called."""
        if self.size_bytes is not None:
            return f"mixed-bytes{self.size_bytes}"
        return f"mixed-bitops{self.bit_operations}"
