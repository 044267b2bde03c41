"""The parts of a bundle that are written, not built: golden, labels, README, manifest."""

from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.compiled import Compiled
from vitq.compiler.support.artifacts import (
    LIBRARY_NAME,
    file_hash,
    versions,
    write_json,
)
from vitq.compiler.support.embedded import EMBEDDED_MODELS
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically

MANIFEST_NAME = "manifest.json"
MANIFEST_HASH_NAME = "manifest.sha256"
MANIFEST_FORMAT = 1
GOLDEN_BYTES = 1 << 18
"""Of golden pictures in a bundle; it has one at least."""
LABELS_NAME = "labels.txt"

README = """\
{model}: an integer-only Vision Transformer for {target} ({architecture}), flavour {flavour}.
./vitq-run verify              every file's SHA-256, and the golden integers (exit 1: different)
./vitq-run infer picture.jpg   {answer}; takes .npy and raw uint8 ({shape}), too
./vitq-run bench               latency and peak memory; --help shows all options and exit codes
Pictures: JPEG, PNG, binary PPM; they are resized and cropped as for calibration.
{meaning}, or read src/vitq_run.cc.
Your own program: {own}
Build the runner again, in src/: {command}
manifest.json has the hash of every file; manifest.sha256 guards it against damage, not forgery.
Licences of all that is in here: licenses/. Made by vitq {version}.
"""
OWN_PROGRAM = {
    "vm": "load lib/libtvm_ffi.so as src/runtime.cc does. Measuring from afar: ./vitq-serve --help",
    "static": "vitq.h and model.so are all it needs; no TVM. Python: python/vitq_model.py.",
}


def model_name(compiled: Compiled) -> str:
    """Return what the model is called."""
    name = compiled.metadata["metadata_props"].get("vitq.model")
    return str(name or compiled.folder.resolve().parent.parent.name)


def write_golden(build: Path, compiled: Compiled) -> None:
    """Return the golden pictures and integers, as many as `GOLDEN_BYTES` allow."""
    pixels, codes = compiled.golden()
    count = min(len(pixels), max(1, GOLDEN_BYTES // pixels[0].nbytes))
    np.save(build / "golden_pixels.npy", np.ascontiguousarray(pixels[:count]))
    rows = codes[:count].reshape(count, -1)
    np.save(build / "golden_codes.npy", np.ascontiguousarray(rows.astype("<i4")))


def class_names(compiled: Compiled, labels: Path | None) -> list[str] | None:
    """Return a name for each class, None where they are unknown.

    Args:
        compiled: the model; the embedded one has names of its own.
        labels: text file with a name on each line.

    Raises:
        VitqError: the file cannot be read, or has not one line for each class.
    """
    classes = compiled.layout.classes
    if classes is None:
        if labels is not None:
            raise VitqError(
                f"--labels {labels} names classes, and the model ranks none: it returns "
                f"{', '.join(compiled.layout.names)}: leave --labels out"
            )
        return None
    if labels is None:
        is_embedded = model_name(compiled) in EMBEDDED_MODELS
        return [str(digit) for digit in range(classes)] if is_embedded else None
    try:
        lines = labels.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VitqError(f"--labels {labels} cannot be read: {error}") from error
    if len(lines) != classes:
        raise VitqError(
            f"--labels {labels} has {len(lines)} lines: the model has {classes} classes"
        )
    return lines


def write_labels(build: Path, compiled: Compiled, labels: Path | None) -> None:
    """Write the classes' names, where they are known.

    Raises:
        VitqError: see `class_names`.
    """
    names = class_names(compiled, labels)
    if names is not None:
        text = "".join(f"{name}\n" for name in names)
        (build / LABELS_NAME).write_text(text, encoding="utf-8")


def write_readme(
    build: Path, compiled: Compiled, flavour: str, architecture: str, command: str
) -> None:
    """Ten lines for the person at the device."""
    layout = compiled.layout
    meanings = [
        f"{name} = {output['scale']!r} * (integer - {output['zero_point']})"
        for name, output in compiled.outputs.items()
    ]
    if layout.classes is not None and len(meanings) == 1:
        meanings = ["Logit of a class: " + meanings[0].partition(" = ")[2]]
    answer = "the five best classes" if layout.classes else "--features out.npy writes the results"
    text = README.format(
        model=model_name(compiled),
        target=compiled.target.name,
        architecture=architecture,
        flavour=flavour,
        shape=" x ".join(map(str, ("N", *compiled.input_shape[1:]))),
        meaning=",\n".join(meanings),
        answer=answer,
        own=OWN_PROGRAM[flavour],
        command=command,
        version=versions(())["vitq"],
    )
    (build / "README").write_text(text, encoding="utf-8")


def write_manifest(
    build: Path, compiled: Compiled, flavour: str, architecture: str, memory: dict[str, int]
) -> dict[str, Any]:
    """Return what the bundle is and the hash of every file; the last thing written.

    Args:
        build: the bundle's folder, complete.
        compiled: where it comes from.
        flavour: of the bundle.
        architecture: of the device.
        memory: bytes that are known in advance.

    Returns:
        The content.
    """
    files = sorted(path for path in build.rglob("*") if path.is_file())
    content = {
        "format": MANIFEST_FORMAT,
        "model": model_name(compiled),
        "flavour": flavour,
        "target": compiled.target.name,
        "architecture": architecture,
        "cpu_needs": list(compiled.target.needs),
        "gpu": list(compiled.target.gpu.architectures) if compiled.target.gpu else None,
        "preprocessing": compiled.preprocessing.to_json(),
        "input": compiled.metadata["inputs"][0],
        "output": compiled.metadata["outputs"][0],
        "outputs": compiled.metadata["outputs"],
        "logits": compiled.layout.logits if compiled.layout.classes else None,
        "memory": memory,
        "compiled_library_sha256": compiled.metadata["sha256"][LIBRARY_NAME],
        "versions": versions(("apache-tvm", "apache-tvm-ffi")),
        "files": [
            {
                "path": str(path.relative_to(build)),
                "sha256": file_hash(path),
                "size_bytes": path.stat().st_size,
            }
            for path in files
        ],
    }
    write_json(build / MANIFEST_NAME, content)
    line = f"{file_hash(build / MANIFEST_NAME)}  {MANIFEST_NAME}\n"
    write_atomically(build / MANIFEST_HASH_NAME, line)
    return content
