"""A compiled model without TVM: arrays in, integer logits out.

model = Model(Path("bundle"))
codes = model(pixels)              # NumPy uint8 (N, C, H, W), any N; int32 (N, classes)
model.results(codes)               # real values of each result by name: features, logits
out = model.run(tensor)            # one batch by DLPack, such as a torch tensor on the GPU
torch.from_dlpack(out)
"""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np

from .ffi import CPU, CUDA, Object, Runtime, RuntimeFailedError

CUDA_LIBRARY = "libtvm_runtime_cuda.so"
POOLED = 2
MAIN = "main"


class Output:
    """A result on its device.

    Args:
        runtime: that made it.
        tensor: its object.
    """

    def __init__(self, runtime: Runtime, tensor: Object) -> None:
        self.runtime, self.tensor = runtime, tensor

    def __dlpack__(self, **_: Any) -> Any:
        """For ``from_dlpack`` of NumPy or PyTorch; no copy."""
        return self.runtime.to_dlpack(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device."""
        dl = self.tensor.dl
        return dl.device_type, dl.device_id

    def numpy(self) -> Any:
        """Copy to the host; waits for the device."""
        dl = self.tensor.dl
        shape = tuple(dl.shape[i] for i in range(dl.ndim))
        result = np.empty(shape, f"{'iuf'[dl.code]}{dl.bits // 8}")
        copy = self.runtime.function("runtime.TVMTensorCopyToBytes")
        copy(self.tensor, ctypes.c_void_p(result.ctypes.data), result.nbytes)
        return result


class Model:
    """A bundle of ``vitq deploy --flavour vm``, or one of a kit's models.

    Args:
        folder: with ``manifest.json`` and ``model.so``.
        libraries: TVM's; the bundle's own if None.

    Raises:
        RuntimeFailedError: no bundle, or a library does not load.
    """

    def __init__(self, folder: Path, libraries: Path | None = None) -> None:
        path = folder / "manifest.json"
        if not path.is_file():
            raise RuntimeFailedError(f"{folder} is no bundle: it has no {path.name}")
        self.manifest = json.loads(path.read_text())
        libraries = libraries or folder / "lib"
        self.cuda = bool(self.manifest.get("gpu"))
        self.runtime = runtime = Runtime(libraries, self.cuda)
        self.shape = tuple(self.manifest["input"]["shape"])
        self.outputs = self.manifest.get("outputs") or [self.manifest["output"]]
        machine = runtime.method(runtime.load(folder / "model.so"), "vm_load_executable")()
        devices = [CUDA, 0, POOLED] if self.cuda else []
        runtime.method(machine, "vm_initialization")(*devices, CPU, 0, POOLED)
        names = ("set_input", "invoke_stateful", "get_output")
        self._machine = machine
        self._set_input, self._invoke, self._get = (runtime.method(machine, n) for n in names)

    @property
    def batch(self) -> int:
        """Static batch size."""
        return int(self.shape[0])

    def set_input(self, pixels: Any) -> None:
        """Copy one batch (anything with ``__dlpack__``) to where the model runs."""
        self._set_input(MAIN, self.runtime.from_dlpack(pixels))

    def invoke(self) -> None:
        """Run on the last input; on a GPU returns when the work is queued."""
        self._invoke(MAIN)

    def output(self, index: int = 0) -> Output:
        """Codes of the last run: of the only result, or of one of several, in their order."""
        place = () if len(self.outputs) == 1 else (index,)
        return Output(self.runtime, self._get(MAIN, *place))

    def run(self, pixels: Any) -> Output:
        """One batch; returns the first result."""
        self.set_input(pixels)
        self.invoke()
        return self.output()

    def __call__(self, pixels: Any) -> Any:
        """Any number of pictures; the last batch is filled up with its last picture.

        Of several results each picture's integers are one row, one result behind the other.
        """
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.shape[1:]:
            raise RuntimeFailedError(
                f"pixels must be uint8 (N, {', '.join(map(str, self.shape[1:]))})"
            )
        found = []
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            missing = self.batch - len(part)
            full = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            self.set_input(np.ascontiguousarray(full))
            self.invoke()
            rows = [self.output(index).numpy() for index in range(len(self.outputs))]
            flat = [codes.reshape(self.batch, -1).astype(np.int32) for codes in rows]
            found.append(np.concatenate(flat, axis=1)[: len(part)])
        return np.concatenate(found)

    def results(self, codes: Any) -> dict[str, Any]:
        """Real values, float32 (N, ...), of each result by name, of what a call returned."""
        found, start = {}, 0
        for output in self.outputs:
            shape = tuple(output["shape"][1:])
            part = codes[:, start : start + int(np.prod(shape))].astype(np.int64)
            real = (output["scale"] * (part - output["zero_point"])).astype(np.float32)
            found[output["name"]] = real.reshape(len(codes), *shape)
            start += part.shape[1]
        return found
