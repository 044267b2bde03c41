"""Run a bundle of flavour static from Python: ctypes and NumPy; neither TVM nor vitq.

    from vitq_model import Model

    model = Model()                      # the bundle that this file lies in
    codes = model(pixels)                # uint8 (N, C, H, W), any N -> int32 (N, classes)
    model.results(codes)                 # real values of each result by name: features, logits
    model.classify(picture, top=5)       # uint8 (height, width), (..., 3) or (..., 4) of any size
    model.verify()                       # the golden integers

    python3 python/vitq_model.py cat.jpg        reads pictures with Pillow, .npy without it
    python3 python/vitq_model.py --json x.npy   as ``vitq run --json`` prints it

A copy of this file lies in every static bundle (``python/vitq_model.py``). Pictures are resized and
cropped by the library itself, bit for bit as at calibration. Threads may share a model: calls wait
for each other.
"""

import argparse
import ctypes
import hashlib
import json
import platform
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

OK = 0


class ModelError(Exception):
    """One line: what is wrong, where, what to do."""


class _Description(ctypes.Structure):
    """What `vitq_describe` returns."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("batch", "channels", "height", "width")),
        ("classes", ctypes.c_int32),
        ("zero_point", ctypes.c_int32),
        ("scale", ctypes.c_double),
        *((f"{name}_bytes", ctypes.c_size_t) for name in ("weights", "arena", "workspace")),
    )


class _Output(ctypes.Structure):
    """What `vitq_describe_output` returns."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int32)),
        *((name, ctypes.c_int32) for name in ("first", "count", "rank", "bits", "zero_point")),
        ("scale", ctypes.c_double),
    )


class Result(NamedTuple):
    """One result: of each picture's integers those from `first` on, in C order of `shape`.

    Its real values are ``scale * (integer - zero_point)``.
    """

    shape: tuple[int, ...]
    first: int
    size: int
    scale: float
    zero_point: int


class Guess(NamedTuple):
    """One class of an answer: number, name (its number where unknown), logit, probability."""

    number: int
    name: str
    logit: float
    probability: float


class Model:
    """A loaded model.

    Attributes:
        input_shape: (C, H, W).
        batch: static; calls take any number of pictures.
        classes: number of integers for each picture, of all results.
        outputs: name of each result -> where it is and what it means, see `Result`.
        scale: ``logit = scale * (integer - zero_point)``.
        zero_point: integer of logit 0.
        labels: names of the classes, None where unknown.
        color: order of the channels that the model takes: RGB, BGR, L or RGBA.
        orientation: of EXIF: ``keep`` or ``apply``.
    """

    def __init__(self, bundle: str | Path | None = None, threads: int = 1) -> None:
        """Check the bundle and load its library.

        Args:
            bundle: its folder; None for the one that this file lies in.
            threads: of each call.

        Raises:
            ModelError: no static bundle, a changed file, another machine's, or no memory.
        """
        folder = Path(__file__).resolve().parents[1] if bundle is None else Path(bundle)
        manifest = _manifest(folder)
        self._folder, self._lock = folder, threading.Lock()
        self._library = _load(folder, manifest)
        about = self._library.vitq_describe().contents
        how = manifest["preprocessing"]
        self.color, self.orientation = how["color"], how["orientation"]
        self.batch, self.classes = about.batch, about.classes
        self.input_shape = about.channels, about.height, about.width
        self.scale, self.zero_point = about.scale, about.zero_point
        self.outputs = _outputs(self._library)
        self._ranking = self.outputs.get(str(manifest["logits"]))
        self.labels: list[str] | None = None
        if (folder / "labels.txt").is_file():
            text = (folder / "labels.txt").read_text(encoding="utf-8")
            self.labels = text.removesuffix("\n").split("\n")
        self._context = ctypes.c_void_p()
        started = self._library.vitq_init(ctypes.byref(self._context), None, 0, threads)
        self._require(started, f"{threads} threads")

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Run pictures of the model's size.

        Args:
            pixels: (N, C, H, W) uint8, any N >= 1.

        Returns:
            (N, classes) int32; of several results all of a picture's, see `outputs`.

        Raises:
            ModelError: another shape or dtype.
        """
        pixels = _array(pixels)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.input_shape or not len(pixels):
            want = " x ".join(map(str, ("N", *self.input_shape)))
            raise ModelError(f"{pixels.dtype} {pixels.shape}: the model takes uint8 {want}")
        codes = np.empty((len(pixels), self.classes), np.int32)
        given = np.zeros((self.batch, *self.input_shape), np.uint8)
        found = np.empty((self.batch, self.classes), np.int32)
        with self._lock:
            for start in range(0, len(pixels), self.batch):
                rows = pixels[start : start + self.batch]
                given[: len(rows)] = rows
                ran = self._library.vitq_infer(self._context, given.ctypes.data, found.ctypes.data)
                self._require(ran, "vitq_infer")
                codes[start : start + len(rows)] = found[: len(rows)]
        return codes

    def prepare(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop a picture as at calibration.

        Args:
            picture: (height, width) gray, (height, width, 3) RGB or (height, width, 4) RGBA.

        Returns:
            (C, H, W) uint8.

        Raises:
            ModelError: nothing of this.
        """
        picture = _array(picture)
        gray = picture.ndim == 2
        if picture.dtype != np.uint8 or not (gray or picture.shape[2:] in ((1,), (3,), (4,))):
            raise ModelError(
                f"{picture.dtype} {picture.shape}: a picture is uint8 (height, width), gray, or "
                "(height, width, 3 or 4)"
            )
        picture, prepared = np.ascontiguousarray(picture), np.empty(self.input_shape, np.uint8)
        height, width = picture.shape[:2]
        components = 1 if gray else picture.shape[2]
        done = self._library.vitq_prepare(
            picture.ctypes.data, width, height, components, prepared.ctypes.data
        )
        self._require(done, f"a picture of {width} x {height}")
        return prepared

    def logits(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Real values of integers (N, classes) of a classifier."""
        codes = self._integers(codes)
        real = self.scale * (codes.astype(np.int64) - self.zero_point)
        return real.astype(np.float32)

    def results(self, codes: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Real values of each result, (N, ...) by name, of what a call returned."""
        found, codes = {}, self._integers(codes)
        for name, (shape, first, count, scale, zero_point) in self.outputs.items():
            part = codes[:, first : first + count].astype(np.int64)
            real = (scale * (part - zero_point)).astype(np.float32)
            found[name] = real.reshape(len(codes), *shape)
        return found

    def classify(self, picture: NDArray[np.uint8], top: int = 5) -> list[Guess]:
        """Find the best classes of a picture of any size.

        Args:
            picture: see `prepare`.
            top: how many classes.

        Returns:
            The best first; of equal ones the first. Probabilities are the logits' softmax.
        """
        (codes,) = self(self.prepare(picture)[None])
        return self.best(codes, top)

    def best(self, codes: NDArray[np.int32], top: int = 5) -> list[Guess]:
        """Find the best classes of one picture's integers (classes,).

        Raises:
            ModelError: the model ranks no classes.
        """
        if self._ranking is None:
            known = ", ".join(self.outputs)
            raise ModelError(f"the model ranks no classes, it returns {known}: take results()")
        (codes,) = self._integers(_array(codes)[None])
        _, first, count, scale, zero_point = self._ranking
        logits = scale * (codes[first : first + count].astype(np.float64) - zero_point)
        weights = np.exp(logits - logits.max())
        order = np.argsort(-logits, kind="stable")[:top].tolist()
        names = self.labels or [str(number) for number in range(count)]
        return [Guess(i, names[i], logits[i], weights[i] / weights.sum()) for i in order]

    def verify(self) -> int:
        """Compare the golden pictures' integers with those of the machine that compiled.

        Returns:
            How many integers were compared.

        Raises:
            ModelError: one differs.
        """
        pixels, codes = (
            np.load(self._folder / f"golden_{name}.npy", allow_pickle=False)
            for name in ("pixels", "codes")
        )
        different = int((self(pixels) != codes).sum())
        if different:
            raise ModelError(f"{different} of {codes.size} golden integers differ on this machine")
        return int(codes.size)

    def close(self) -> None:
        """Give the memory back; the model cannot be used any more."""
        with self._lock:
            self._library.vitq_free(self._context)
            self._context = ctypes.c_void_p()

    def _integers(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Refuse what no call returned."""
        codes = _array(codes)
        if codes.dtype.kind not in "iu" or codes.shape[1:] != (self.classes,):
            raise ModelError(
                f"{codes.dtype} {codes.shape}: integers of a call are int32 N x {self.classes}"
            )
        return codes

    def _require(self, code: int, what: str) -> None:
        if code != OK:
            raise ModelError(f"{what}: {self._library.vitq_strerror(code).decode()}")


def _array(value: object) -> NDArray[Any]:
    """Return an array as it is: a list's numbers have no type that could be checked."""
    if isinstance(value, np.ndarray):
        return value
    raise ModelError(f"{type(value).__name__} is no array: give NumPy's, of uint8")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        flavour, machine = content["flavour"], content["architecture"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is no bundle of vitq deploy: {error}") from error
    if flavour != "static":
        raise ModelError(f"{folder} has flavour {flavour}: deploy it with --flavour static")
    if machine != platform.machine():
        raise ModelError(f"{folder} is for {machine}, and this is {platform.machine()}")
    return content


def _load(folder: Path, manifest: dict[str, Any]) -> ctypes.CDLL:
    """Load the library, if it is the one that was deployed."""
    path = folder / "model.so"
    wanted = {file["path"]: file["sha256"] for file in manifest["files"]}.get(path.name)
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise ModelError(f"{path} is not the file that was deployed: copy the bundle again")
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise ModelError(f"{path} cannot be loaded: {error}") from error
    address, number = ctypes.c_void_p, ctypes.c_int
    library.vitq_describe.restype = ctypes.POINTER(_Description)
    library.vitq_describe_output.restype = ctypes.POINTER(_Output)
    library.vitq_describe_output.argtypes = [ctypes.c_int32]
    library.vitq_strerror.restype = ctypes.c_char_p
    library.vitq_init.argtypes = [ctypes.POINTER(address), address, ctypes.c_size_t, number]
    library.vitq_infer.argtypes = [address] * 3
    library.vitq_prepare.argtypes = [address, *[ctypes.c_int32] * 3, address]
    library.vitq_free.argtypes = [address]
    return library


def _outputs(library: ctypes.CDLL) -> dict[str, Result]:
    """Return what the library says of its results."""
    found: dict[str, Result] = {}
    while about := library.vitq_describe_output(len(found)):
        it = about.contents
        shape = tuple(it.shape[: it.rank])
        found[it.name.decode()] = Result(shape, it.first, it.count, it.scale, it.zero_point)
    return found


def _answers(path: Path, model: Model) -> list[tuple[str, list[Guess]]]:
    """Classify what is in a file; a row of an array has its number behind the file's name."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder: name its pictures, such as {path}/*.png")
    if path.suffix == ".npy":
        rows = model(np.load(path, allow_pickle=False))
        return [(f"{path}[{row}]", model.best(codes)) for row, codes in enumerate(rows)]
    return [(str(path), model.classify(read_picture(path, model)))]


def read_picture(path: Path, model: Model) -> NDArray[np.uint8]:
    """Read a picture with Pillow, as calibration does.

    Args:
        path: of any format that Pillow reads.
        model: says whether EXIF's orientation counts, and which channels it takes.

    Returns:
        (height, width), (height, width, 3) or (height, width, 4), for `Model.prepare`.

    Raises:
        ModelError: it cannot be read, or has 32 bits for a channel, whose range is not known.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return _colored(opened, path, model)
    except ModelError:
        raise
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        said = error if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as a picture: {said}") from error


def _colored(opened: Any, path: Path, model: Model) -> NDArray[np.uint8]:
    """Decode a picture; see `read_picture`."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(opened) if model.orientation == "apply" else opened
    is_pgm = opened.format == "PPM" and image.mode == "I"
    if image.mode.startswith("I;16") or is_pgm:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ModelError(f"{path} has 32 bits for a channel (mode {image.mode}): save it with 8")
    return np.asarray(image.convert("RGB" if model.color == "BGR" else model.color))


def _to_json(picture: str, guesses: list[Guess]) -> dict[str, Any]:
    """Return one answer as ``vitq run --json`` gives it."""
    keys = ("class", "name", "logit", "probability")
    classes = [dict(zip(keys, guess, strict=True)) for guess in guesses]
    return {"picture": picture, "classes": classes}


def main(arguments: list[str]) -> int:
    """Classify files; without any compare the golden integers."""
    parser = argparse.ArgumentParser(prog="vitq_model", description=main.__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="pictures, or .npy of uint8 pixels")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    given = parser.parse_args(arguments)
    try:
        model = Model()
        answers = [answer for path in given.files for answer in _answers(path, model)]
        if given.json and given.files:
            print(json.dumps({"answers": [_to_json(*answer) for answer in answers]}, indent=1))
        elif given.json:
            print(json.dumps({"compared": model.verify(), "different": 0}))
        elif not given.files:
            print(f"{model.verify()} golden integers compared, 0 differ")
        else:
            for picture, guesses in answers:
                best = ", ".join(f"{g.name} {100 * g.probability:.1f} %" for g in guesses)
                print(f"{picture}: {best}")
    except (ModelError, OSError, ValueError) as error:
        print(f"vitq_model: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
