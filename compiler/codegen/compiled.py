"""A compiled model's folder, opened: what it is, and how it is run."""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitq.compiler.support.artifacts import (
    GOLDEN_NAME,
    LIBRARY_NAME,
    METADATA_NAME,
    QUANTIZE_NAME,
    file_hash,
    open_artifact,
    read_json,
    require_folder,
)
from vitq.compiler.support.embedded import EMBEDDED_MODELS, own_pictures
from vitq.compiler.target.table import TARGETS, Target
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.npy import read_npz
from vitq.quantization.graph.outputs import OutputLayout, join
from vitq.quantization.pictures.preprocessing import Preprocessing

if TYPE_CHECKING:
    from vitq.compiler.codegen.importing import ImportedModel

logger = logging.getLogger(__name__)

Backend = Literal["library", "reference"]


@dataclass(frozen=True)
class Compiled:
    """A target's folder, opened.

    Attributes:
        folder: ``.../<target>``.
        metadata: content of ``metadata.json``.
    """

    folder: Path
    metadata: dict[str, Any]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(B, C, H, W)."""
        return tuple(self.metadata["inputs"][0]["shape"])

    @property
    def is_foreign(self) -> bool:
        """Whether the model was quantized elsewhere."""
        return open_artifact(self.folder).is_foreign

    @property
    def own_pictures(self) -> str | None:
        """Source of the pictures that come with the model: the embedded one has some."""
        name = self.metadata["metadata_props"].get("vitq.model")
        return own_pictures(name) if name in EMBEDDED_MODELS else None

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """What pictures become.

        Raises:
            VitqError: an earlier version compiled it.
        """
        if "preprocessing" not in self.metadata:
            raise VitqError(
                f"{self.folder} was compiled by an earlier version, which did not keep how "
                "pictures become its input: quantize, export and compile again"
            )
        return Preprocessing.from_json(self.metadata["preprocessing"], self.folder)

    @property
    def batch(self) -> int:
        """Static batch size."""
        return self.input_shape[0]

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Name of each result -> its shape, dtype, scale and zero point, in order."""
        return {output["name"]: output for output in self.metadata["outputs"]}

    @functools.cached_property
    def layout(self) -> OutputLayout:
        """Where each result is in a row of what the library returns."""
        shapes = {k: tuple(v["shape"][1:]) for k, v in self.outputs.items()}
        is_ours = "vitq.model" in self.metadata["metadata_props"]
        if not is_ours and len(shapes) == 1:  # whatever it is called there
            return OutputLayout(shapes, next(iter(shapes)))
        return OutputLayout(shapes)

    def logits(self, codes: IntArray) -> FloatArray:
        """Real values of integer logits, or of rows of results, float32."""
        return join(self.reals(codes).values(), len(codes))

    def reals(self, codes: IntArray) -> dict[str, FloatArray]:
        """Real values of each result, float32, by name."""
        return {name: self.real(name, part) for name, part in self.layout.split(codes).items()}

    def real(self, name: str, codes: IntArray) -> FloatArray:
        """Real values of one result's codes, float32."""
        output = self.outputs[name]
        centred = codes.astype(np.int64) - output["zero_point"]
        found: FloatArray = (centred * float(output["scale"])).astype(np.float32)
        return found

    @property
    def target(self) -> Target:
        """The table's entry that it was compiled for."""
        entry, architectures = self.metadata.get("entry"), self.metadata.get("architectures")
        if entry not in TARGETS:
            raise VitqError(f"{self.folder}: its target is not in the table: compile again")
        target = TARGETS[entry]
        return target.for_architectures(tuple(architectures)) if architectures else target

    def library(self, threads: int | None = None) -> Callable[[UInt8Array], IntArray]:
        """Return the compiled model (see `library_path`)."""
        from vitq.compiler.codegen.library import Library

        return Library(self.library_path(), self.input_shape, self.target, threads)

    def library_path(self) -> Path:
        """Return the library's file.

        Raises:
            VitqError: if it is not the one that was compiled.
        """
        path = self.folder / LIBRARY_NAME
        if path.is_file() and file_hash(path) != self.metadata["sha256"][LIBRARY_NAME]:
            raise VitqError(f"{path} is not the library that was compiled: compile again")
        return path

    def golden(self) -> tuple[UInt8Array, IntArray]:
        """Return the pictures and integers that compile stored.

        Raises:
            VitqError: if the file is not the one that compile wrote, or holds anything else.
        """
        path = self.folder / GOLDEN_NAME
        if not path.is_file() or file_hash(path) != self.metadata["sha256"].get(GOLDEN_NAME):
            raise VitqError(f"{path} is not the file that compile wrote: compile again")
        pixels, codes = read_npz(path, "pixels", "codes")
        fits = pixels.shape[1:] == self.input_shape[1:] and codes.shape[:1] == pixels.shape[:1]
        if not fits or pixels.dtype != np.uint8 or codes.dtype.kind != "i":
            raise VitqError(f"{path} does not fit {METADATA_NAME}: compile again")
        return pixels, codes

    def reference(self) -> Callable[[UInt8Array], IntArray]:
        """Open the independent integer reference; a foreign model's is the interpreter."""
        if self.is_foreign:
            return self._interpreter()
        from vitq.quantization.graph import artifact as storage
        from vitq.quantization.run.reference import IntegerReference

        self.require_current()
        return IntegerReference(storage.load(open_artifact(self.folder).folder).graph)

    def require_current(self) -> None:
        """Refuse a library beside which the model was quantized again.

        Raises:
            VitqError: its weights or what becomes of its pictures are not those of the artifact.
        """
        from vitq.quantization.graph.artifact import TENSORS_NAME

        artifact = self.folder.resolve().parent
        tensors, quantized = artifact / TENSORS_NAME, artifact / QUANTIZE_NAME
        known = self.metadata["sha256"].get(TENSORS_NAME)
        if known is not None and tensors.is_file() and file_hash(tensors) != known:
            raise VitqError(
                f"{self.folder} was compiled from another {TENSORS_NAME}: the model was quantized "
                "again since; run export and compile"
            )
        own = self.metadata.get("preprocessing")
        if own is None or not quantized.is_file():
            return
        if read_json(quantized).get("provenance", {}).get("preprocessing") != own:
            raise VitqError(
                f"{self.folder} prepares pictures in another way than {QUANTIZE_NAME} says now: "
                "the model was quantized again since; run export and compile"
            )

    def imported(self) -> "ImportedModel":
        """Return the integer module, imported and lowered again."""
        from vitq.compiler.codegen.importing import Meaning, import_model

        mean, std = (self.metadata[key] and tuple(self.metadata[key]) for key in ("mean", "std"))
        meaning = Meaning(self.batch, mean, std, self.metadata["nonlinear"])
        return import_model(open_artifact(self.folder).onnx, meaning)

    def _interpreter(self) -> Callable[[UInt8Array], IntArray]:
        """Return the integer operators on NumPy."""
        from vitq.compiler.codegen.importing import interpreter_runner

        return interpreter_runner(self.imported())

    def backend(
        self, name: Backend, threads: int | None = None
    ) -> Callable[[UInt8Array], IntArray]:
        """One of the two by name."""
        return self.library(threads) if name == "library" else self.reference()


def open_compiled(folder: Path) -> Compiled:
    """Open a target's folder.

    Raises:
        VitqError: if nothing was compiled there; the compiled targets are listed.
    """
    require_folder(folder)
    path = folder / METADATA_NAME
    if path.is_file():
        return Compiled(folder, checked(read_json(path), path))
    found = sorted(str(p.parent) for p in folder.glob(f"*/{METADATA_NAME}"))
    if len(found) == 1:
        return open_compiled(Path(found[0]))
    if found:
        raise VitqError(f"{folder} holds several targets: give one of {', '.join(found)}")
    raise VitqError(f"{folder} holds no compiled library: run compile first")


def checked(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """Refuse metadata that somebody edited or damaged, before anything relies on it.

    Args:
        metadata: content of the file.
        path: its name.

    Returns:
        The same.

    Raises:
        VitqError: naming the entry.
    """
    bad = next((name for name, test in FACTS.items() if not _holds(test, metadata)), None)
    if bad is not None:
        raise VitqError(f"{path} is damaged: {bad} is missing or wrong: compile again")
    return metadata


def _holds(test: Callable[[Any], object], metadata: dict[str, Any]) -> bool:
    """Whether a fact can be read, and is true."""
    try:
        return bool(test(metadata))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 24


def _is_output(output: Any) -> bool:
    """Whether a result says what its integers mean."""
    return (
        isinstance(output["name"], str)
        and isinstance(output["zero_point"], int)
        and math.isfinite(output["scale"])
        and output["scale"] > 0
        and np.dtype(output["dtype"]).kind in "iu"
        and all(map(_is_size, output["shape"]))
    )


def _are_numbers(values: Any, count: int) -> bool:
    """Whether values are absent, or a number for each channel."""
    return values is None or (len(values) == count and all(math.isfinite(v) for v in values))


FACTS: dict[str, Callable[[Any], object]] = {
    "inputs": lambda m: (
        len(m["inputs"][0]["shape"]) == 4 and all(map(_is_size, m["inputs"][0]["shape"]))
    ),
    "batch": lambda m: m["batch"] == m["inputs"][0]["shape"][0],
    "outputs": lambda m: len(m["outputs"]) > 0 and all(map(_is_output, m["outputs"])),
    "target": lambda m: isinstance(m["target"], str),
    "entry": lambda m: isinstance(m.get("entry"), str | None),
    "architectures": lambda m: all(isinstance(v, str) for v in m.get("architectures") or ()),
    "sha256": lambda m: all(isinstance(v, str) for v in m["sha256"].values()),
    "metadata_props": lambda m: all(isinstance(v, str) for v in m["metadata_props"].values()),
    "mean": lambda m: _are_numbers(m["mean"], m["inputs"][0]["shape"][1]),
    "std": lambda m: _are_numbers(m["std"], m["inputs"][0]["shape"][1]),
    "nonlinear": lambda m: m["nonlinear"] in list(Nonlinear),
}
"""What `Compiled` and those that use it rely on."""
