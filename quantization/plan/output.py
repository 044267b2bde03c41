"""What a library returns of a map of scores; a module of its own that imports nothing heavy."""

from enum import StrEnum


class Output(StrEnum):
    """The scores of each pixel as codes, or the class with the largest one."""

    CODES = "codes"
    ARGMAX = "argmax"
