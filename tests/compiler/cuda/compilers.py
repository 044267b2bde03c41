"""Whether CUDA can be compiled here."""

import pytest

from compiler.cuda import nvrtc, toolchain
from compiler.cuda.places import find_tool

needs_compiler = pytest.mark.skipif(
    find_tool("nvcc") is None and nvrtc.version() is None,
    reason=f"no CUDA compiler: {toolchain.HOW}",
)
