"""All instructions, by name: what the TIR calls and the emulator look up."""

from vitq.compiler.kernels.cuda.instructions import matrix, order, wgmma, words
from vitq.compiler.kernels.cuda.instructions.instruction import Instruction

INSTRUCTIONS: dict[str, Instruction] = {
    instruction.name: instruction
    for family in (matrix, order, words, wgmma)
    for instruction in family.INSTRUCTIONS
}

FUNCTIONS: dict[str, Instruction] = {
    instruction.function: instruction for instruction in INSTRUCTIONS.values()
}
"""By the name of the device function."""
