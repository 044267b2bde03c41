"""What the warp-wide instructions compute, in NumPy, from the PTX manual's fragment layouts.

Arrays are (warps, 32 lanes, ...). With ``g = lane // 4`` and ``t = lane % 4``, for
``mma.m16n8k32`` with 8-bit operands and ``mma.m8n8k16`` likewise:

    A (16, 32): register r, byte i   ->  row g + 8 (r % 2), column 16 (r // 2) + 4 t + i
    B (32, 8):  register r, byte i   ->  row 16 r + 4 t + i, column g
    C (16, 8):  register r           ->  row g + 8 (r // 2), column 2 t + r % 2
    ldmatrix:   matrix m, byte i     ->  row g, byte 4 t + i of the 8 x 16 bytes of matrix m
    its trans:  matrix m, byte i     ->  row 2 t + i // 2, byte 2 g + i % 2
"""

import numpy as np

from vitq.numerics.arrays import IntArray

LANES = 32
_LANE = np.arange(LANES)
_GROUP, _QUAD = _LANE // 4, _LANE % 4
_BYTE = np.arange(4)

_A_ROW = (_GROUP[:, None, None] + 8 * (np.arange(4)[:, None] % 2)) + 0 * _BYTE
_A_COLUMN = 16 * (np.arange(4)[:, None] // 2) + 4 * _QUAD[:, None, None] + _BYTE
_B_ROW = 16 * np.arange(2)[:, None] + 4 * _QUAD[:, None, None] + _BYTE
_B_COLUMN = _GROUP[:, None, None] + 0 * (np.arange(2)[:, None] + _BYTE)
_C_ROW = _GROUP[:, None] + 8 * (np.arange(4) // 2)
_C_COLUMN = 2 * _QUAD[:, None] + np.arange(4) % 2


def mma(acc: IntArray, a: IntArray, b: IntArray, signs: str) -> IntArray:
    """``acc + a @ b`` for fragments.

    Args:
        acc: (warps, 32, 4) int32.
        a: (warps, 32, 4) int32, four bytes each.
        b: (warps, 32, 2) int32, four bytes each.
        signs: such as ``u8s8``.

    Returns:
        (warps, 32, 4) int32.
    """
    warps = acc.shape[0]
    left = np.zeros((warps, 16, 32), np.int64)
    right = np.zeros((warps, 32, 8), np.int64)
    left[:, _A_ROW, _A_COLUMN] = _bytes(a, signs[:2])
    right[:, _B_ROW, _B_COLUMN] = _bytes(b, signs[2:])
    product = (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
    total: IntArray = (acc + product[:, _C_ROW, _C_COLUMN]).astype(np.int32)
    return total


def wgmma(acc: IntArray, a: IntArray, b: IntArray, signs: str) -> IntArray:
    """``acc + a @ b.T`` for one warp's rows of ``wgmma.m64nNk32``.

    Args:
        acc: (warps, 32, N / 2) int32: for each 8 columns the registers of `mma`.
        a: (warps, 16, K) uint8, bytes of the first operand.
        b: (warps, N, K) uint8.
        signs: such as ``u8s8``.

    Returns:
        As `acc`.
    """
    kinds = {"s8": np.int8, "u8": np.uint8}
    left = np.ascontiguousarray(a).view(kinds[signs[:2]]).astype(np.float64)
    right = np.ascontiguousarray(b).view(kinds[signs[2:]]).astype(np.float64)
    product = (left @ right.transpose(0, 2, 1)).astype(np.int64)
    blocks = np.stack(np.split(product, product.shape[2] // 8, axis=2), axis=1)
    found = blocks[:, :, _C_ROW, _C_COLUMN].transpose(0, 2, 1, 3).reshape(acc.shape)
    total: IntArray = (acc + found).astype(np.int32)
    return total


def swizzled(row: IntArray, byte: IntArray, chunk: int) -> IntArray:
    """Where a byte of a row of 64 or 128 lies in it: the hardware's order of 16-byte pieces."""
    turn = row // (128 // chunk) % (chunk // 16)
    return ((byte // 16) ^ turn) * 16 + byte % 16


def _bytes(registers: IntArray, sign: str) -> IntArray:
    """(..., registers) int32 as (..., registers, 4) bytes."""
    kind = np.int8 if sign == "s8" else np.uint8
    parts = np.ascontiguousarray(registers.astype(np.int32)).view(kind)
    return parts.reshape(*registers.shape, 4)


def ldmatrix_bytes(rows: IntArray) -> IntArray:
    """Where each lane's four registers come from.

    Args:
        rows: (warps, 32) byte address of each lane's row.

    Returns:
        (warps, 32, 4 registers, 4 bytes) byte addresses.
    """
    matrix = np.arange(4)
    source = rows[:, 8 * matrix[None, :] + _GROUP[:, None]]  # (warps, lane, matrix)
    addresses: IntArray = source[..., None] + 4 * _QUAD[:, None, None] + _BYTE
    return addresses


def ldmatrix_trans_bytes(rows: IntArray) -> IntArray:
    """As `ldmatrix_bytes`, for the transposing form."""
    matrix, row = np.arange(4)[:, None], 2 * _QUAD[:, None, None] + _BYTE // 2
    source = rows[:, 8 * matrix + row]  # (warps, lane, matrix, byte)
    addresses: IntArray = source + 2 * _GROUP[:, None, None] + _BYTE % 2
    return addresses
