"""The README's two tables: one of accuracy, one of speed."""

from typing import Any

from docs.tools.measured import gpu_times
from docs.tools.tables import markdown, milliseconds, read, row_of

ACCURACY = (("w8a8", "repq"), ("w4a8", "best"), ("w4a4", "best"))
SIZES = {"w8a8": "DeiT-Tiny W8/A8", "w4a8": "DeiT-Tiny W4/A8", "w4a4": "DeiT-Tiny W4/A4"}

UNTIMED = (
    "RTX (sm_75, sm_86, sm_89, sm_120), Jetson Orin (sm_87)",
    "not timed: none was at hand",
    "compiled; the embedded model's kernels emulated, all integers right",
)


def accuracy() -> str:
    """Sum up what quantizing costs in accuracy."""
    rows = [["DeiT-Tiny, float32 in PyTorch", f"{_float_top1()} of 200", "", "", ""]]
    for recipe, method in ACCURACY:
        scores = row_of("accuracy-today", recipe=recipe, method=method)
        size = row_of("size", what=SIZES[recipe])["bytes"] / 1e6
        agreement = f"{100 * scores['agreement']:.1f} %"
        rows.append([f"DeiT-Tiny {scores['what']}", f"{scores['top1']} of 200",
                     agreement, f"{scores['cosine']:.4f}", f"{size:.1f} MB"])  # fmt: skip
    for what, name in (("float", "float32"), ("integer-only library", "W8/A8, `repq`")):
        digits = row_of("checks", what=f"embedded model, 360 held-out digits, top-1: {what}")
        rows.append([f"embedded digits model, {name}", f"{digits['top1']} of {digits['pictures']}",
                     "", "", ""])  # fmt: skip
    head = ["model", "top-1", "agreement with float", "cosine", "`model.so` (of `repq`)"]
    return markdown(head, rows)


def _float_top1() -> int:
    return int(row_of("accuracy-today", what="float32, PyTorch")["top1"])


def _cpu(rows: list[dict[str, Any]], key: str, names: dict[str, str]) -> tuple[str, str]:
    times = {row[key]: row["median_ms"] for row in rows if row.get("batch", 1) == 1}
    others = ", ".join(f"{what} {milliseconds(times[name])}" for name, what in names.items())
    return f"**{milliseconds(times['vitq-int8-tuned'])}**", others


def speed() -> str:
    """Sum up how fast DeiT-Tiny is, and beside whom."""
    names = {"openvino-int8": "OpenVINO int8", "onnxruntime-int8-u8s8": "onnxruntime int8",
             "onnxruntime-fp32": "onnxruntime float32"}  # fmt: skip
    rows = [
        ["one core, AVX512-VNNI (EPYC, Zen 5)",
         *_cpu(read("deit_tiny-contestants")["rows"], "contestant", names)],
        ["one core, AVX2 (EPYC, Zen 3)", *_cpu(read("deit_tiny-zen3")["rows"], "name", names)],
    ]  # fmt: skip
    for batch in (1, 32):
        found = gpu_times()["deit_tiny", batch]
        theirs = ", ".join(f"PyTorch {name} {milliseconds(found[f'torch-{name}']['median_ms'])}"
                           for name in ("fp16", "fp32"))  # fmt: skip
        own = f"**{milliseconds(found['vitq-int8']['median_ms'])}**"
        label = "NVIDIA H200" + (f", {batch} pictures" if batch > 1 else "")
        rows.append([label, own, theirs])
    rows.append(list(UNTIMED))
    ours = row_of("arm-instructions", what="one picture, vitq")
    same = row_of("arm-instructions", what="one picture, onnxruntime, the same QDQ file")
    for key, name in (("rpi5", "Raspberry Pi 5"), ("rpi4", "Raspberry Pi 4")):
        rows.append([f"{name}, emulated: instructions, not a time", f"{ours[key]} million",
                     f"onnxruntime, the same QDQ file {same[key]} million"])  # fmt: skip
    return markdown(["DeiT-Tiny, one picture", "vitq int8, ms", "beside it, ms"], rows)
