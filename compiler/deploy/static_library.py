"""Flavour ``static``: the kernels, a table of calls, and a small C file that runs it.

The table (``vitq_plan.h``) is generated and meant to be read; what runs it, ``vitq_static.c``, is
hand-written; the weights are a binary file that the assembler includes.
"""

import shutil
import string
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.compiled import Compiled
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.deploy.contents import model_name
from vitq.compiler.deploy.static_plan import StaticPlan, Tensor, legalize_layout, plan_memory
from vitq.compiler.support.artifacts import LIBRARY_NAME, versions
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import Toolchain

RUNNER_SOURCES = Path(__file__).resolve().parent / "runner"
C_SOURCES = (
    *("vitq.h", "vitq_static.c", "vitq_threads.h"),
    *("vitq_pixels.h", "vitq_pixels.c", "vitq_resize.h"),
)
DLPACK_CODES = {"i": 0, "u": 1}
FUNCTIONS = (
    *("version", "model_id", "describe", "describe_output", "strerror", "memory_bytes", "init"),
    *("infer", "error", "free", "prepare", "resize"),
)
"""Of `vitq.h`, without their prefix: what the library shows."""
EXPORTS = f"{{ global: {' '.join(f'vitq_{name};' for name in FUNCTIONS)} local: *; }};\n"
ROW = 12
"""Numbers in a line of a generated table."""


def build_static_library(build: Path, compiled: Compiled, tools: Toolchain) -> dict[str, int]:
    """Write ``model.so``, ``vitq.h`` and the sources.

    Args:
        build: the bundle's folder; ``src`` holds the runner's sources.
        compiled: which model, for which target.
        tools: of the target.

    Returns:
        Bytes of the weights, the arena and a thread's workspace.
    """
    source = build / "src"
    module = _lowered(compiled)
    plan = plan_memory(module)
    for name in C_SOURCES:
        shutil.copy(RUNNER_SOURCES / name, source)
    (source / "vitq_plan.h").write_text(render(plan, compiled))
    (source / "constants.bin").write_bytes(plan.constants)
    (source / "exports.map").write_text(EXPORTS)
    _compile_kernels(module, compiled.target, source / "kernels.o")
    arguments = [
        "-Wl,--as-needed", "-std=gnu11", "-x", "c", "vitq_static.c", "vitq_pixels.c", "-x", "none",
        "kernels.o", "-lm", "-shared", "-fPIC",
        "-fvisibility=default", "-pthread", "-Wl,--version-script=exports.map", "-Wl,-z,defs",
        "-Wl,-z,noexecstack", "-Wl,--gc-sections", "-o", f"../{LIBRARY_NAME}",
    ]  # fmt: skip
    tools.build(arguments, source, "building the static library")
    for name in ("constants.bin", "kernels.o"):  # they are in the library
        (source / name).unlink()
    (source / "vitq.h").rename(build / "vitq.h")
    (source / "vitq.h").write_text('#include "../vitq.h"\n')
    return {
        "weights_bytes": len(plan.constants),
        "arena_bytes": plan.arena_bytes,
        "workspace_bytes": plan.workspace_bytes,
    }


def _lowered(compiled: Compiled) -> Any:
    """Return the module of kernels, as compile made it."""
    from tvm.target import Target as TvmTarget

    from vitq.compiler.codegen.lower_kernels import lower_kernels
    from vitq.compiler.support.artifacts import open_artifact

    metadata, target = compiled.metadata, compiled.target
    mean, std = (metadata[key] and tuple(metadata[key]) for key in ("mean", "std"))
    meaning = Meaning(compiled.batch, mean, std, metadata["nonlinear"])
    model = import_model(open_artifact(compiled.folder).onnx, meaning)
    tvm_target = TvmTarget(target.tvm_config())
    choose = _recorded_schedules(metadata.get("schedules", []))
    return legalize_layout(lower_kernels(model.integer.mod, target.features, tvm_target, choose))


def _recorded_schedules(schedules: list[dict[str, Any]]) -> Any:
    """Read the schedules that the artifact's library has, whatever the tuning log holds by now."""
    from vitq.compiler.tuning.workload import task_text

    values = {applied["task"]: applied["values"] for applied in schedules}
    return lambda kernel: values.get(task_text(kernel), {})


def _compile_kernels(module: Any, target: Target, path: Path) -> None:
    """Make an object file of all PrimFuncs."""
    import tvm
    from tvm.target import Target as TvmTarget

    tvm_target = TvmTarget(target.tvm_config())
    kernels = {
        symbol: function.with_attr({"target": tvm_target, "global_symbol": symbol.name_hint})
        for symbol, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    executable = tvm.compile(tvm.IRModule(kernels), target=tvm_target)
    executable.mod.write_to_file(str(path), "o")


def render(plan: StaticPlan, compiled: Compiled) -> str:
    """Return the text of ``vitq_plan.h``."""
    assert plan.input is not None and plan.outputs
    tables = _Tables()
    input_index = tables.index(plan.input)
    results = [tables.index(tensor) for tensor in plan.outputs]
    steps: list[str] = []
    operands: list[int] = []
    for step in plan.steps:
        steps.append(
            f'    {{"{step.kernel}", __tvm_ffi_{step.kernel}, {len(operands)}, '
            f"{len(step.operands)}}},"
        )
        operands += [tables.index(tensor) for tensor in step.operands]
    sizes = {
        "VITQ_ARENA_BYTES": plan.arena_bytes,
        "VITQ_WORKSPACE_BYTES": plan.workspace_bytes,
        "VITQ_TENSORS": len(tables.places),
        "VITQ_STEPS": len(steps),
        "VITQ_MAX_OPERANDS": max(len(step.operands) for step in plan.steps),
        "VITQ_INPUT": input_index,
        "VITQ_INPUT_BYTES": plan.input.size_bytes,
        "VITQ_OUTPUTS": len(results),
    }
    names = sorted({step.kernel for step in plan.steps})
    lines = ["/* Generated by vitq deploy. */"]
    lines += [f"#define {name} ((size_t){value})" for name, value in sizes.items()]
    lines += _about(plan, compiled) + _outputs(compiled, results) + _how(compiled)
    lines += [f"extern vitq_kernel __tvm_ffi_{name};" for name in names]
    lines += _numbers("int64_t vitq_shapes", tables.shapes)
    lines += _numbers("int64_t vitq_strides", tables.strides)
    lines += ["static const vitq_place vitq_places[] = {", *tables.places, "};"]
    lines += _numbers("uint16_t vitq_operands", operands)
    lines += ["static const vitq_step vitq_steps[] = {", *steps, "};"]
    return "\n".join(lines) + "\n"


def _about(plan: StaticPlan, compiled: Compiled) -> list[str]:
    output = compiled.metadata["outputs"][0]
    integers = sum(map(prod, compiled.layout.shapes.values()))
    numbers = [*compiled.input_shape, integers, output["zero_point"]]
    return [
        "static const vitq_description vitq_about = {",
        f"    {', '.join(map(str, numbers))}, {float(output['scale'])!r},",
        f"    {len(plan.constants)}, VITQ_ARENA_BYTES, VITQ_WORKSPACE_BYTES}};",
    ]


def _outputs(compiled: Compiled, results: list[int]) -> list[str]:
    """Describe each result, and say which tensor holds it."""
    shapes: list[int] = []
    rows, first = [], 0
    for output in compiled.metadata["outputs"]:
        shape = output["shape"][1:]
        bits = 8 * np.dtype(output["dtype"]).itemsize
        numbers = (first, prod(shape), len(shape), bits, output["zero_point"])
        rows.append(
            f'    {{"{c_text(output["name"])}", vitq_output_shapes + {len(shapes)}, '
            f"{', '.join(map(str, numbers))}, {float(output['scale'])!r}}},"
        )
        shapes += shape or [1]
        first += prod(shape)
    return [
        *_numbers("int32_t vitq_output_shapes", shapes),
        "static const vitq_output vitq_results[] = {",
        *rows,
        "};",
        *_numbers("uint32_t vitq_result_tensors", results),
    ]


def _how(compiled: Compiled) -> list[str]:
    """Say what `vitq_prepare` does, and who wrote the library."""
    how = compiled.preprocessing
    words = (
        *(f"VITQ_{how.color}", f"VITQ_{how.resize}", *how.resize_size),
        *(f"VITQ_ROUND_{how.rounding}", f"VITQ_{how.interpolation}"),
        f"VITQ_CROP_{how.crop_offset}",
    )
    fill = ", ".join(map(str, how.fill))
    numbers = [*how.input_shape[1:], *(str(word).upper() for word in words)]
    identity = f"{model_name(compiled)} {compiled.metadata['sha256'][LIBRARY_NAME]}"
    fields = f"{', '.join(map(str, numbers))}, {{{fill}}}"
    return [
        f"static const vitq_preprocessing vitq_how = {{{fields}}};",
        f'#define VITQ_VERSION "{c_text(versions(())["vitq"])}"',
        f'#define VITQ_MODEL_ID "{c_text(identity)}"',
    ]


def c_text(text: str) -> str:
    """Spell a text inside of a C string's quotes: all but plain characters in octal."""
    plain = set(string.ascii_letters + string.digits + " .-_+")
    return "".join(
        chr(byte) if chr(byte) in plain else f"\\{byte:03o}" for byte in text.encode("utf-8")
    )


def _numbers(declaration: str, values: list[int]) -> list[str]:
    rows = [values[i : i + ROW] for i in range(0, len(values), ROW)]
    body = [f"    {', '.join(map(str, row))}," for row in rows]
    return [f"static const {declaration}[] = {{", *body, "};"]


class _Tables:
    """Tensors and shapes, each once."""

    def __init__(self) -> None:
        self.shapes: list[int] = []
        self.strides: list[int] = []
        self.places: list[str] = []
        self._starts: dict[tuple[int, ...], int] = {}
        self._indices: dict[str, int] = {}

    def index(self, tensor: Tensor) -> int:
        """Count the a tensor in the table."""
        dtype = np.dtype(tensor.dtype)
        place = (
            f"    {{{int(tensor.block is None)}, {DLPACK_CODES[dtype.kind]}, "
            f"{8 * dtype.itemsize}, {len(tensor.shape)}, {self._shape(tensor.shape)}, "
            f"{tensor.offset}}},"
        )
        if place not in self._indices:
            self._indices[place] = len(self.places)
            self.places.append(place)
        return self._indices[place]

    def _shape(self, shape: tuple[int, ...]) -> int:
        """Where a shape and its strides start."""
        if shape not in self._starts:
            self._starts[shape] = len(self.shapes)
            self.shapes += shape or (0,)
            self.strides += [prod(shape[axis + 1 :]) for axis in range(len(shape))] or [0]
        return self._starts[shape]
