"""The pinned pair of TVM packages."""

import subprocess
import sys

import pytest

from vitq.compiler.support import compat
from vitq.numerics.errors import VitqError

TENSORIZE = """
import sys, types
from pathlib import Path

import tvm.s_tir

# Without the package's own imports, which take a minute: only x86's intrinsics are needed.
package = types.ModuleType("tvm.s_tir.tensor_intrin")
package.__path__ = [str(Path(tvm.s_tir.__file__).parent / "tensor_intrin")]
sys.modules[package.__name__] = package

from tvm import te
from tvm.s_tir import Schedule
from tvm.s_tir.tensor_intrin.x86 import VNNI_DOT_16x4_INTRIN
a = te.placeholder((8, 16), "uint8", name="a")
b = te.placeholder((16, 16), "int8", name="b")
k = te.reduce_axis((0, 16), name="k")
c = te.compute(
    (8, 16),
    lambda i, j: te.sum(a[i, k].astype("int32") * b[j, k].astype("int32"), axis=k),
    name="c",
)
schedule = Schedule(te.create_prim_func([a, b, c]))
block = schedule.get_sblock("c")
i, j, r = schedule.get_loops(block)
outer, inner = schedule.split(r, [None, 4])
schedule.reorder(i, outer, j, inner)
schedule.decompose_reduction(block, outer)
schedule.tensorize(j, VNNI_DOT_16x4_INTRIN)
print("tensorized")
"""


def test_versions_are_the_pinned_ones() -> None:
    compat.check_versions()


def test_another_version_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "FFI_VERSION", "9.9")
    with pytest.raises(VitqError, match=r"pip install apache-tvm-ffi==9\.9"):
        compat.check_versions()


def test_tensorize_does_not_crash() -> None:
    """With apache-tvm-ffi 0.1.15 it does; the pin can go when a newer pair passes this."""
    done = subprocess.run([sys.executable, "-c", TENSORIZE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "tensorized"
