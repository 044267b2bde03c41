"""A compiled model: what runs, is checked, explained and saved."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vitq.api.explaining import explained
from vitq.api.given import given_pictures, pixels_of
from vitq.api.workspace import TARGET_FILES, Workspace, copy_files, save_artifact
from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.deploy.contents import class_names
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.run import TOP, best_classes, infer
from vitq.compiler.stages.verify import verify, verify_emulated
from vitq.compiler.studies.explain import REMOVALS
from vitq.compiler.studies.explanation import Explanation
from vitq.compiler.support.artifacts import open_artifact
from vitq.numerics.errors import VitqError
from vitq.quantization.model.given import GivenModel
from vitq.quantization.pictures.given import GivenPictures

if TYPE_CHECKING:
    from vitq.api.given import Labels, Pixels
    from vitq.compiler.codegen.compiled import Backend
    from vitq.compiler.stages.run import Guess
    from vitq.compiler.stages.scores import Row
    from vitq.compiler.stages.verify import Check
    from vitq.numerics.arrays import IntArray, UInt8Array

FOLDER_COUNT = 64
"""Pictures of a folder or a file that `Library.verify` compares."""

Results: TypeAlias = Any
"""float32 (N, ...), or `Integers`, of a model's only result; of several a dict of these by name."""


class Library:
    """A compiled model; made by `compile` or `load`.

    Several threads may call one library: their calls wait for each other, as its memory is one.
    What is to run at the same time needs a `load` for each thread.

    Attributes:
        folder: where its files lie: of a compiled model a temporary folder that goes away with
            this object.
        target: name of the target.
        batch: static batch size; calls take any number of pictures.
        input_shape: (C, H, W) of a picture.
        classes: number of logits; None of a model that ranks no classes.
        outputs: names of the results: ``logits`` of a classifier.
        metadata: what ``metadata.json`` says of it.
    """

    def __init__(
        self, folder: Path, workspace: Workspace | None, module: GivenModel | None = None
    ) -> None:
        self._compiled: Compiled = open_compiled(folder)
        self._workspace = workspace
        self._module = module
        self._backends: dict[Any, Callable[[UInt8Array], IntArray]] = {}
        self._one_at_a_time = threading.Lock()
        self.folder = self._compiled.folder
        self.metadata: dict[str, Any] = self._compiled.metadata
        self.target: str = self.metadata["target"]
        self.batch: int = self._compiled.batch
        channels, height, width = self._compiled.input_shape[1:]
        self.input_shape: tuple[int, int, int] = (channels, height, width)
        self.classes: int | None = self._compiled.layout.classes
        self.outputs: tuple[str, ...] = self._compiled.layout.names

    def __call__(self, pixels: "UInt8Array") -> Results:
        """Logits of raw pixels, or what else the model returns.

        Args:
            pixels: (N, C, H, W) uint8, any N >= 1; the model's normalization is inside.

        Returns:
            (N, classes) float32, or the model's only result; of several a dict by name, in the
            model's order.

        Raises:
            VitqError: another shape or dtype, or a library for a machine that this is not.

        Example:
            >>> lib(np.zeros((3, 3, 32, 32), np.uint8)).shape
            (3, 10)
        """
        return self.run(pixels)

    def run(
        self,
        pixels: "UInt8Array",
        *,
        raw: bool = False,
        backend: "Backend" = "library",
        threads: int | None = None,
    ) -> Results:
        """Logits of raw pixels, or the integers that they are made of.

        Args:
            pixels: (N, C, H, W) uint8, any N >= 1.
            raw: return the integers and their scale.
            backend: ``library``, or ``reference``: the same integers in NumPy, on any machine.
            threads: of TVM's pool, which the first call in a process makes; None leaves its choice.

        Returns:
            (N, classes) float32; or codes (N, classes), scale and zero point, with
            ``logits = (codes - zero_point) * scale``. Of several results a dict of these by name.

        Raises:
            VitqError: another shape or dtype, an unknown backend, another machine's library.

        Example:
            >>> codes, scale, zero_point = lib.run(pixels, raw=True)
        """
        if backend not in ("library", "reference"):
            raise VitqError(f"backend {backend!r}: choose library or reference")
        key, given = (backend, threads), pixels_of(pixels)
        with self._one_at_a_time:
            if key not in self._backends:
                self._backends[key] = self._compiled.backend(backend, threads)
            found = infer(self._compiled, self._backends[key], given)
        if raw:
            return found if len(found) > 1 else next(iter(found.values()))
        reals = {name: self._compiled.real(name, each.codes) for name, each in found.items()}
        return reals if len(reals) > 1 else next(iter(reals.values()))

    def pixels(self, pictures: "Pixels") -> "UInt8Array":
        """Resize and crop pictures as the model wants them: what calibration and evaluation do.

        Args:
            pictures: a PIL image, an iterable of them, a folder or a file of pictures; pixels of
                the model's size stay as they are.

        Returns:
            (N, C, H, W) uint8, what a call takes.

        Raises:
            VitqError: a picture that cannot be read, or nothing of this.

        Example:
            >>> logits = lib(lib.pixels(Image.open("cat.jpg")))
        """
        from vitq.quantization.pictures.pictures import SUFFIXES, load_pictures
        from vitq.quantization.pictures.pixels import load_picture

        prep, source = self._compiled.preprocessing, given_pictures(pictures)
        if source is None:
            raise VitqError("no pictures: give a PIL image, a folder or a file")
        if isinstance(source, str) and Path(source).suffix.lower() in SUFFIXES:
            return load_picture(Path(source), prep)[None]
        return load_pictures(source, prep, None, "evaluation").pixels

    def classify(
        self,
        pictures: "Pixels",
        *,
        top: int = TOP,
        names: Sequence[str] | None = None,
    ) -> "list[tuple[Guess, ...]]":
        """Find the best classes of pictures.

        Args:
            pictures: see `pixels`.
            top: how many classes of each.
            names: of all classes; the embedded model has its own.

        Returns:
            For each picture its best classes, the best first: ``number``, ``name`` (None where
            unknown), ``logit``, ``probability`` (softmax).

        Raises:
            VitqError: see `pixels`; names that are not one for each class.

        Example:
            >>> lib.classify(Image.open("cat.jpg"))[0][0].number
            281
        """
        if self.classes is None:
            raise VitqError(
                f"the model ranks no classes: it returns {', '.join(self.outputs)}: call the "
                "library for them"
            )
        if names is not None and len(names) != self.classes:
            raise VitqError(f"{len(names)} names: the model has {self.classes} classes")
        known = class_names(self._compiled, None) if names is None else list(names)
        found = self.run(self.pixels(pictures))
        logits = found[self._compiled.layout.logits] if isinstance(found, dict) else found
        return [best_classes(row, known, top) for row in logits]

    def verify(
        self,
        pixels: "Pixels | None" = None,
        *,
        count: int | None = None,
        threads: int | None = None,
        emulate: bool = False,
    ) -> "list[Check]":
        """Compare the library with the independent integer reference, bit for bit.

        Args:
            pixels: real pictures: (N, C, H, W) uint8, a folder, a ``.npy`` file or PIL images; None
                for the embedded model's own, or none. Golden, random and extreme ones come on top.
            count: how many; None for all in hand, and 64 of a folder or file.
            threads: of the library.
            emulate: run the kernels of a CUDA library thread by thread, without a GPU.

        Returns:
            One check for each set of pictures, of each kernel if emulated.

        Raises:
            IntegersDifferError: if one integer differs.
            VitqError: another machine's library, or pictures of another shape or dtype.

        Example:
            >>> sum(check.different for check in lib.verify(pixels))
            0
        """
        if emulate:
            if pixels is not None:
                raise VitqError("emulate runs single kernels: leave pixels out")
            return verify_emulated(self.folder)
        pictures = given_pictures(pixels, None, count)
        if count is None and not isinstance(pictures, GivenPictures):
            count = FOLDER_COUNT
        return verify(self.folder, pictures, count, threads, keep=self._workspace is not None)

    def evaluate(
        self,
        pixels: "Pixels | None" = None,
        labels: "Labels | None" = None,
        *,
        count: int | None = None,
        backends: Sequence[str] | None = None,
        threads: int | None = None,
        classes: str | Path | None = None,
    ) -> "dict[str, Row]":
        """Accuracy and closeness to the float model of every step.

        Args:
            pixels: (N, C, H, W) uint8, PIL images, a ``.npy`` file, or a folder with class folders
                or ``labels.csv``; None for the embedded model's held-out digits.
            labels: (N,) class numbers of pictures in hand.
            count: how many; None for all.
            backends: of ``float``, ``onnxruntime``, ``reference``, ``library``, each on every
                picture; None for all that are known (no float model is behind a foreign file), the
                reference on a few pictures: the others' integers it takes from the library.
            threads: of the library.
            classes: file with the model's classes, for the labels of a folder: JSON
                ``{"name": number}``, or a name on each line.

        Returns:
            Backend -> its row: ``images``, ``top1``, ``top5`` (None without labels), ``agreement``
            and ``mean_cosine`` with the float model, ``sqnr_db``, ``seconds``.

        Raises:
            VitqError: no pictures, labels that do not fit, an unknown backend, a float model that
                cannot be loaded any more.

        Example:
            >>> lib.evaluate(pixels, labels)["library"].top1
            357
        """
        source = given_pictures(pixels, labels, count)
        chosen = None if backends is None else tuple(backends)
        names = None if classes is None else Path(classes)
        rows = evaluate(self.folder, source, count, chosen, threads, self._module, names)
        return {row.name: row for row in rows}

    def explain(
        self,
        pixels: "Pixels | None" = None,
        labels: "Labels | None" = None,
        *,
        count: int | None = None,
        removals: int = REMOVALS,
        html: str | Path | None = None,
    ) -> Explanation:
        """Say where accuracy goes; arguments and result are those of `vitq.explain`.

        Args:
            pixels: pictures.
            labels: of pictures in hand.
            count: how many.
            removals: on how many roundings are taken out in turn.
            html: report to write.

        Returns:
            The explanation.

        Raises:
            VitqError: no pictures, or a float model that is unknown or not there any more.

        Example:
            >>> lib.explain(pixels, labels).findings[0]
        """
        return explained(self.folder, self._module, pixels, labels, count, removals, html)

    def save(self, folder: str | Path) -> Path:
        """Write the artifact with this library, as the commands do: they and `load` take it.

        Args:
            folder: of the artifact; made if needed, this target's folder inside, too. Libraries of
                the same model for other targets stay, another model's artifact is replaced.

        Returns:
            The artifact's folder.

        Raises:
            VitqError: other files lie there.

        Example:
            >>> lib.save("out/")  # then: vitq verify out/
        """
        out = Path(folder)
        save_artifact(open_artifact(self.folder), out)
        place = out / self.folder.resolve().name
        if not (place.is_dir() and place.samefile(self.folder)):
            copy_files(self.folder, place, TARGET_FILES)
        return out

    def __repr__(self) -> str:
        shape = "x".join(map(str, (self.batch, *self.input_shape)))
        is_classifier = self.classes is not None and len(self.outputs) == 1
        what = f"{self.classes} classes" if is_classifier else ", ".join(self.outputs)
        return f"<vitq.Library for {self.target}, {shape} -> {what}>"
