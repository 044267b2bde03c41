"""A kit for a machine with a GPU and without TVM: everything that is compiled, and what runs it.

    kit/
        gpu_kit/               `compiler.gpu_kit`, as it is:  python3 -m gpu_kit
        lib/                   TVM's runtime libraries
        models/<name>/         model.so, manifest.json, golden pictures and integers
        tasks/<number>/        kernels.so: one task's candidates; constants.npz
        kit.json  tasks.json   what there is, and the hashes of what kernels must compute

Tuning a GPU is done in two halves: here candidates are chosen and compiled and the arithmetic
contract is evaluated (`compiler.codegen.contract`), there they are compared with it and timed
(`compiler.gpu_kit.kernels`), and here the times become a log (`compiler.tuning.offline`). The same
two halves run one after the other where TVM and a GPU are on one machine.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.deploy.contents import model_name, write_golden, write_manifest
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.support.artifacts import LIBRARY_NAME, Artifact, open_artifact
from vitq.compiler.support.embedded import EMBEDDED_MODELS
from vitq.compiler.support.folders import resource
from vitq.compiler.support.runtime_libs import runtime_files
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import toolchain
from vitq.compiler.tuning.candidates import Candidates
from vitq.numerics.errors import VitqError
from vitq.numerics.files import replaced_folder, require_writable

logger = logging.getLogger(__name__)

PACKAGE = resource("vitq.compiler", "gpu_kit")
KIT_NAME, TASKS_NAME = "kit.json", "tasks.json"
VITQ, UNTUNED = "vitq-int8", "vitq-int8-untuned"


@dataclass(frozen=True, kw_only=True)
class KitOptions:
    """What a kit is to hold.

    Attributes:
        out: its folder; an earlier kit there is replaced.
        target: one with a GPU.
        batches: of each model.
        candidates: of each tuning task; 0 for a kit that only compares.
        contestants: whether the float model compiled by TVM (which takes minutes) and the QDQ file
            are in it, too.
    """

    out: Path
    target: Target = field(default_factory=lambda: get_target("cuda"))
    batches: tuple[int, ...] = (1,)
    candidates: int = 0
    contestants: bool = False

    def __post_init__(self) -> None:
        """Refuse a target without a GPU."""
        if self.target.gpu is None:
            raise VitqError(f"target {self.target.name} has no GPU: a kit is for {_gpu_targets()}")


def _gpu_targets() -> str:
    from vitq.compiler.target.table import TARGETS

    return ", ".join(name for name, target in TARGETS.items() if target.gpu)


def kit(folders: Sequence[Path], options: KitOptions) -> Path:
    """Compile everything and put it together.

    Args:
        folders: of artifacts.
        options: batches and number of candidates.

    Returns:
        The kit's folder.

    Raises:
        VitqError: no artifact, no compiler, or the folder is no kit.
    """
    out = options.out
    taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if taken and not (out / KIT_NAME).is_file():
        raise VitqError(f"{out} exists and is no kit: give another --out")
    require_writable(out)
    with replaced_folder(out) as build:
        _fill(build, folders, replace(options, out=build))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    logger.info("kit: %s, %.1f MB", out, size / 1e6)
    return out


def _fill(out: Path, folders: Sequence[Path], options: KitOptions) -> None:
    """Write everything."""
    target = options.target
    (out / "models").mkdir()
    shutil.copytree(PACKAGE, out / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, path in runtime_files(toolchain(target).architecture, cuda=True).items():
        if name.startswith(("lib/", "licenses/")):
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copy(path, out / name)
    about: dict[str, Any] = {"target": target.name, "models": [], "benchmarks": [], "products": []}
    found = Candidates(target, out, options.candidates)
    for folder in folders:
        artifact = open_artifact(folder)
        for batch in options.batches:
            _add_model(artifact, batch, options, about)
            found.add(artifact, batch)
    about["products"] = found.products()
    (out / TASKS_NAME).write_text(json.dumps(found.build(), indent=1))
    (out / KIT_NAME).write_text(json.dumps(about, indent=1))


def _add_model(artifact: Artifact, batch: int, options: KitOptions, about: dict[str, Any]) -> None:
    """Add a model at one batch size, tuned, and untuned if that is another library."""
    libraries: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for label, tuned in ((VITQ, True), (UNTUNED, False)):
        folder = compile_model(
            artifact.folder,
            CompileOptions(target=options.target, batch=batch, tuned=tuned),
        )
        compiled = open_compiled(folder)
        schedules = json.dumps([s["values"] for s in compiled.metadata["schedules"]])
        if schedules in hashes:
            continue
        name = f"{model_name(compiled)}-{folder.name}".replace(":", ".")
        hashes[schedules] = libraries[label] = name
        to = options.out / "models" / name
        to.mkdir()
        shutil.copy(folder / LIBRARY_NAME, to / LIBRARY_NAME)
        write_golden(to, compiled)
        write_manifest(to, compiled, "vm", toolchain(compiled.target).architecture, {})
        about["models"].append(name)
    name = str(compiled.metadata["metadata_props"].get("vitq.model") or "")
    about["benchmarks"].append({
        "model": model_name(compiled),
        "batch": batch,
        "image_size": compiled.input_shape[-1],
        "libraries": libraries,
        "float_libraries": _add_floats(artifact, batch, options) if options.contestants else {},
        "onnx": _add_qdq(artifact, options.out) if options.contestants else None,
        "timm": None if name in ("", *EMBEDDED_MODELS) or ":" in name else name,
    })


def _add_floats(artifact: Artifact, batch: int, options: KitOptions) -> dict[str, str]:
    """Return the float model compiled by TVM, in single precision and with products in half."""
    from vitq.compiler.benchmark.prepare import Task, float_onnx
    from vitq.compiler.benchmark.tvm_float_gpu import build_float_library

    target, found = options.target, {}
    source = float_onnx(Task(artifact, target.name, batch))
    shape = [batch, *open_compiled(artifact.target_folder(target.name, batch)).input_shape[1:]]
    assert target.gpu is not None
    for label, half in (("tvm-fp32", False), ("tvm-fp16", True)):
        name = f"{artifact.folder.parent.name}-{label}-b{batch}"
        folder = options.out / "models" / name
        folder.mkdir()
        logger.info("kit: %s", name)
        build_float_library(source, target, folder / LIBRARY_NAME, half)
        about_it = {"gpu": target.gpu.architectures, "input": {"shape": shape, "dtype": "float32"}}
        (folder / "manifest.json").write_text(json.dumps(about_it))
        found[label] = name
    return found


def _add_qdq(artifact: Artifact, out: Path) -> str:
    """Return the QDQ file, once for all batch sizes; its path in the kit."""
    path = out / "models" / f"{artifact.folder.parent.name}.onnx"
    if not path.is_file():
        shutil.copy(artifact.onnx, path)
    return str(path.relative_to(out))
