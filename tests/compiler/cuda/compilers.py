"""Whether CUDA can be compiled here."""

import pytest

from vitq.compiler.nvidia import nvrtc, toolchain
from vitq.compiler.nvidia.places import find_tool

needs_compiler = pytest.mark.skipif(
    find_tool("nvcc") is None and nvrtc.version() is None,
    reason=f"no CUDA compiler: {toolchain.HOW}",
)
