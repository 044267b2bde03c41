"""Which kernels a compiled model calls, read from the program of TVM's virtual machine."""

import re

MAIN = "main"
BUILTIN = "vm.builtin."
_FUNCTION = re.compile(r"^@([\w.]+):$")
_CALL = re.compile(r"^call\s+(\S+)\s+in:(.*)dst:")
_INNER = re.compile(r"f\[([\w.]+)\]")


def kernel_calls(text: str) -> list[str]:
    """Names of the kernels in the order in which one run of ``main`` calls them.

    A function that is recorded as a CUDA graph counts where it is replayed.

    Args:
        text: ``as_text()`` of the executable.
    """
    functions: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if begin := _FUNCTION.match(line):
            current = functions.setdefault(begin.group(1), [])
        elif call := _CALL.match(line.strip()):
            current.append((call.group(1), call.group(2)))
    return _calls(functions, MAIN)


def _calls(functions: dict[str, list[tuple[str, str]]], name: str) -> list[str]:
    found = []
    for called, operands in functions[name]:
        if called in functions:
            found += _calls(functions, called)
        elif not called.startswith(BUILTIN):
            found.append(called)
        else:
            for inner in _INNER.findall(operands):
                found += _calls(functions, inner)
    return found
