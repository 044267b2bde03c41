"""A kit and its runner on a machine without a GPU: kernels compiled for the processor."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from tests.relay_passes.modules import module
from vitq.compiler.codegen.contract import Operator, operators_of
from vitq.compiler.gpu_kit.contents import GOLDEN_FILES, LIBRARIES, MODEL_FILES
from vitq.compiler.kernels import building
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cpu import builder
from vitq.compiler.nvidia import driver
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.tools import find_compiler
from vitq.compiler.tuning.measure import save_constants
from vitq.numerics.add import AddParams
from vitq.relay_passes.dialect import calls as dialect

PACKAGE = Path(driver.__file__).parent.parent
HOST_GPU = """
from gpu_kit.timing import Gpu

class HostGpu(Gpu):
    '''CUDA's memory and clock on the host: what is measured there runs on the processor.'''

    def __init__(self):
        self.kept = {}

    def put(self, array):
        memory = np.empty(array.nbytes + 64, np.uint8)  # TVM's code for processors aligns to 64
        start = -memory.ctypes.data % 64
        copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        self.kept[copy.ctypes.data] = copy
        return int(copy.ctypes.data)

    def put_into(self, address, array):
        self.kept[address][...] = array

    def get(self, address, array):
        array[...] = self.kept[address]

    def wait(self):
        pass

    def kernel_us(self, launch):
        launch()
        return 1.0
"""


def run_alone(code: str, *arguments: Path) -> str:
    """Run code in a process without TVM, which the runner brings itself; its output."""
    text = f"import sys, numpy as np\nfrom pathlib import Path\n{code}"
    command = [sys.executable, "-c", text, *map(str, arguments)]
    environment = {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HOST_MAIN = (
    HOST_GPU
    + """
import gpu_kit.__main__ as program
from gpu_kit.ffi import Runtime
program.Gpu = lambda ffi: HostGpu()
program.Runtime = lambda folder, cuda: Runtime(folder, cuda=False)
sys.argv = ["gpu_kit", "--kit", sys.argv[1], "--out", sys.argv[2], *sys.argv[3:]]
"""
)
"""Then `program.main()` runs a kit."""

SUM = AddParams(0, 0, 2**13, 2**13, 13, 0, -128, 127)
"""``clamp(a + b)``."""


def addition() -> Operator:
    """An operator of two activations whose kernel runs on this machine."""
    kind = ((4, 64), "int8")
    mod = module({"a": kind, "b": kind}, lambda f, a, b: f(dialect.add(a, b, SUM, "int8")))
    (operator,) = operators_of(mod, get_target("cpu").features)
    return operator


def odd_sum(a: Any, b: Any, _: Any, out: Any) -> None:
    """A wrong kernel: ``clamp((a + b) | 1)``, which is right wherever a and b are extreme."""
    with builder.serial(4) as row, builder.serial(64) as column:
        x, y = (builder.cast(builder.load(v, row, column), "int32") for v in (a, b))
        total = (x + y) | builder.const(1, "int32")
        code = tirx.max(tirx.min(total, builder.const(127, "int32")), builder.const(-128, "int32"))
        builder.store(out, code, row, column)


def write_task(folder: Path, operator: Operator) -> dict[str, Any]:
    """A task with two right points, a wrong one and one that the library lacks."""
    target, kernel = get_target("cpu"), operator.kernel
    odd = building.build("odd", kernel.inputs, kernel.out, odd_sum)
    bodies = {"point0": build_kernel(kernel), "point1": odd, "point2": build_kernel(kernel)}
    tvm_target = tvm.target.Target(target.tvm_config())
    functions = {
        name: body.with_attr({"target": tvm_target, "global_symbol": name})
        for name, body in bodies.items()
    }
    folder.mkdir(parents=True)
    library = tvm.compile(tvm.IRModule(functions), target=tvm_target)
    library.export_library(str(folder / "kernels.so"), cc=find_compiler(target))
    save_constants(folder / "constants.npz", operator.constants)
    return {
        "task": "add",
        "types": [[list(t.shape), t.dtype] for t in (*kernel.inputs, kernel.out)],
        "contract": operator.to_json(),
        "macs": 0,
        "bytes": 768,
        "points": [{"symbol": f"point{i}", "values": {"x": i}} for i in range(4)],
    }


def write_kit(kit: Path, bundle: Path) -> list[dict[str, Any]]:
    """A kit of one model, the same task twice and one benchmark; its tasks."""
    operator = addition()
    (kit / "models" / "digits").mkdir(parents=True)
    for name in (*MODEL_FILES, *GOLDEN_FILES):
        shutil.copy(bundle / name, kit / "models" / "digits" / name)
    shutil.copytree(bundle / "lib", kit / "lib")
    (kit / "lib" / LIBRARIES[-1]).touch()
    tasks = [
        write_task(kit / "tasks" / str(i), operator) | {"folder": f"tasks/{i}"} for i in range(2)
    ]
    entry = {"model": "digits", "batch": 1, "libraries": {}, "float_libraries": {}, "onnx": None}
    about = {"models": ["digits"], "benchmarks": [entry], "products": []}
    (kit / "kit.json").write_text(json.dumps(about))
    (kit / "tasks.json").write_text(json.dumps(tasks))
    return tasks
