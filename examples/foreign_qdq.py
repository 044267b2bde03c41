"""An ONNX file that onnxruntime's quantizer made: python examples/foreign_qdq.py.

PyTorch's exporter needs onnxscript: pip install onnxscript.
"""

import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import vitq
from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import calibration_images, eval_images, normalize
from vitq.quantization.model.models import load_model


class Calibration(CalibrationDataReader):
    """Normalized pictures, one at a time."""

    def __init__(self) -> None:
        self._pictures = iter(normalize(calibration_images(16)))

    def get_next(self) -> dict | None:
        """One picture, None behind the last one."""
        picture = next(self._pictures, None)
        return None if picture is None else {"image": picture[None]}


def their_file(folder: Path) -> Path:
    """Return what another tool leaves behind: quantizers around float operators."""
    source, prepared, path = (folder / f"{name}.onnx" for name in ("float", "prepared", "theirs"))
    torch.onnx.export(
        load_model("digits_vit").module,
        (torch.zeros(1, 3, 32, 32),),
        source,
        dynamo=True,
        opset_version=20,
        input_names=["image"],
        external_data=False,
        verbose=False,
    )
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        path,
        Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def main() -> None:
    """Compile the file to integers only, verify and evaluate it."""
    pixels, labels = eval_images(100)
    with tempfile.TemporaryDirectory() as folder:
        # Its input is a normalized float picture: the library takes raw pixels and knows both.
        # The file has a fixed batch of 1.
        lib = vitq.compile(their_file(Path(folder)), batch=1, mean=MEAN, std=STD)
    checks = lib.verify(pixels[:8])
    print(f"{sum(check.values for check in checks)} integers are those of the {checks[1].against}")
    print(f"float operators left: {len(lib.metadata['float_islands'])}")
    row = lib.evaluate(pixels, labels, backends=["library"])["library"]
    print(f"{row.name}: {row.top1} of {row.images}")


if __name__ == "__main__":
    main()
