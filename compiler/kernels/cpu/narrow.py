"""Weights of fewer than eight bits: packed in the library, unpacked in registers.

A bundle of steps shares its registers. A weight of b bits is cut into planes of 4, 2 or 1 bits,
from the top; a plane's register holds the bits of ``8 / plane`` steps, one field of each byte for
each step. With 4 bits, a byte is the weights of two steps; with 3 bits eight steps take two
registers of 2-bit fields and one of 1-bit fields:

    bits  planes  steps in a bundle  registers for them
    2     2       4                  1
    3     2 + 1   8                  2 + 1
    4     4       2                  1

`Narrow.unpack` moves each field to the top of its byte, where its sign is the byte's: a shift of
16-bit lanes (no processor shifts bytes) and a mask, half an instruction more for 4 bits than
loading bytes. So the dot product multiplies ``weight * 2**(8 - b)``, and its sums are exact
multiples: one shift of a finished accumulator by ``8 - b`` gives the same integers as bytes do.
`narrow_for` makes sure that the larger sums are int32.

Few rows unpack in their loop, a register once for all rows of a tile. Many rows unpack a column
tile's weights once for a block of row tiles (`compiler.kernels.cpu.microkernel.widened`). Widths
from 5 bits on are stored as bytes: they would take three or more instructions for each register to
save at most three eighths.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitq.compiler.kernels.cpu.builder import Expr, bind, const, lanes_of, reinterpret
from vitq.numerics.arrays import IntArray

PLANES = {2: (2,), 3: (2, 1), 4: (4,)}
BYTE = 8
LARGEST_ACTIVATION = 255
INT32_LIMIT = 2**31


@dataclass(frozen=True)
class Narrow:
    """How weights of `bits` bits are packed."""

    bits: int

    @property
    def planes(self) -> tuple[int, ...]:
        """Bits of each plane, from the top."""
        return PLANES[self.bits]

    @property
    def steps(self) -> int:
        """Steps of a bundle."""
        return BYTE // min(self.planes)

    @property
    def registers(self) -> int:
        """Count a bundle's registers."""
        return self.steps * self.bits // BYTE

    @property
    def up(self) -> int:
        """By how many bits weights are shifted when they are multiplied."""
        return BYTE - self.bits

    def pack(self, dense: IntArray) -> IntArray:
        """Pack what `Dot.pack` arranged.

        Args:
            dense: (groups, steps, bytes) int8, all within `bits` bits.

        Returns:
            (groups, bundles * registers, bytes) int8; missing steps are 0.
        """
        groups, steps, width = dense.shape
        bundles = -(-steps // self.steps)
        padded = np.zeros((groups, bundles * self.steps, width), np.uint8)
        padded[:, :steps] = dense.view(np.uint8)
        parts, left = [], self.bits
        for plane in self.planes:
            left -= plane
            fields = (padded >> left) & ((1 << plane) - 1)
            fields = fields.reshape(groups, bundles, -1, BYTE // plane, width)
            moves = plane * np.arange(BYTE // plane, dtype=np.uint8)[:, None]
            parts.append(np.bitwise_or.reduce(fields << moves, axis=3))
        packed = np.concatenate(parts, axis=2).astype(np.uint8).view(np.int8)
        return np.ascontiguousarray(packed).reshape(groups, bundles * self.registers, width)

    def unpack(self, read: Callable[[int], Expr], step: int) -> Expr:
        """Return the weights of one step of a bundle, times ``2**up``.

        Args:
            read: a register of the bundle, as bytes.
            step: of the bundle.

        Returns:
            A register of bytes.
        """
        total, first, top = None, 0, BYTE
        for plane in self.planes:
            top -= plane
            fields = BYTE // plane
            raw = read(first + step // fields)
            words = f"uint16x{lanes_of(raw) // 2}"
            field = _moved(bind(reinterpret(raw, words)), top - plane * (step % fields))
            mask = ((1 << plane) - 1) << top
            field = bind(field & const(mask << BYTE | mask, "uint16", lanes_of(raw) // 2))
            total = field if total is None else bind(total | field)
            first += self.steps // fields
        return bind(reinterpret(total, str(raw.ty.dtype)))

    def expanded(self, packed: IntArray) -> IntArray:
        """Unpack all bundles of packed weights as `unpack` does: (groups, steps, bytes) int8."""
        groups, _, width = packed.shape
        raw = packed.view(np.uint8).reshape(groups, -1, self.registers, width)
        steps = []
        for step in range(self.steps):
            total, first, top = np.zeros_like(raw[:, :, 0]), 0, BYTE
            for plane in self.planes:
                top -= plane
                fields = BYTE // plane
                field = raw[:, :, first + step // fields] >> plane * (step % fields)
                total |= (field & ((1 << plane) - 1)) << top
                first += self.steps // fields
            steps.append(total)
        return np.stack(steps, axis=2).reshape(groups, -1, width).view(np.int8)


def _moved(words: Expr, bits: int) -> Expr:
    """16-bit lanes shifted left, or right where `bits` is negative."""
    if bits == 0:
        return words
    by = const(abs(bits), "uint16", lanes_of(words))
    return bind(words << by if bits > 0 else words >> by)


def narrow_for(weight: IntArray) -> Narrow | None:
    """How constant weights are packed.

    Args:
        weight: (N, K) int8.

    Returns:
        The narrowest packing that holds them; None for bytes.
    """
    wide = weight.astype(np.int64)
    largest = int(np.maximum(wide, ~wide).max(initial=0))
    for bits in sorted(PLANES):
        if largest < 1 << (bits - 1):
            reach = np.abs(wide).sum(axis=1).max(initial=0) * LARGEST_ACTIVATION
            return Narrow(bits) if int(reach) << (BYTE - bits) < INT32_LIMIT else None
    return None
