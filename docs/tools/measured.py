"""Tables of what ``vitq benchmark --json`` and ``python3 -m gpu_kit`` wrote."""

from typing import Any

from docs.tools.tables import caption, markdown, milliseconds, read, row_of

CONTESTANTS = {
    "vitq-int8-tuned": "vitq",
    "openvino-int8": "OpenVINO int8",
    "onnxruntime-int8-u8s8": "onnxruntime u8s8",
    "onnxruntime-int8-qdq": "QDQ file in onnxruntime",
    "openvino-fp32": "OpenVINO fp32",
    "onnxruntime-fp32": "onnxruntime fp32",
    "tvm-fp32": "TVM fp32",
    "torch-fp32": "PyTorch",
}
MODELS = {"deit_tiny": "DeiT-Tiny", "deit_small": "DeiT-Small", "deit_base": "DeiT-Base"}
GPU_CONTESTANTS = {
    "torch-fp16": "PyTorch fp16, CUDA graph",
    "torch-tf32": "TF32, graph",
    "torch-fp32": "fp32, graph",
    "tvm-fp32": "TVM fp32",
}
OWN = "vitq-int8"
KERNELS = {
    "linear_0": "qkv",
    "linear_add_0": "projection + residual",
    "linear_gelu_0": "MLP 1 + GELU",
    "linear_add_1": "MLP 2 + residual",
    "attention_0": "attention, both products and Shiftmax",
}


def _label(model: str, batch: int, threads: int) -> str:
    parts = [MODELS[model]]
    parts += [f"batch {batch}"] if batch > 1 else []
    parts += [f"{threads} threads"] if threads > 1 else []
    return ", ".join(parts)


def _lines(label: str, times: dict[str, float]) -> list[list[str]]:
    """One line of milliseconds, and one of our time as a share of each."""
    own = times["vitq-int8-tuned"]
    first, second = [label, f"**{milliseconds(own)}**"], ["ratio", ""]
    for name in list(CONTESTANTS)[1:]:
        first.append(milliseconds(times[name]) if name in times else "")
        second.append(f"{own / times[name]:.2f}" if name in times else "")
    return [first, second]


def _runs(name: str) -> dict[tuple[int, int], dict[str, float]]:
    """(batch, threads) -> contestant -> median milliseconds."""
    found: dict[tuple[int, int], dict[str, float]] = {}
    for row in read(name)["rows"]:
        times = found.setdefault((row["batch"], row["threads"]), {})
        times[row["name"]] = row["median_ms"]
    return found


def cpu_latency(suffix: str = "") -> str:
    """Compare the contestants on one class of processor."""
    lines: list[list[str]] = []
    files = [f"{model}{suffix}" for model in MODELS]
    if not suffix:
        whole = {r["contestant"]: r["median_ms"] for r in read("deit_tiny-contestants")["rows"]}
        lines += _lines(f"{MODELS['deit_tiny']}, all contestants", whole)
    else:
        files = files[:2]
    for model, name in zip(MODELS, files, strict=False):
        for (batch, threads), times in _runs(name).items():
            lines += _lines(_label(model, batch, threads), times)
    head = ["milliseconds, ratio: vitq's time / theirs", *CONTESTANTS.values()]
    sources = ["deit_tiny-contestants", *files] if not suffix else files
    note = "One pinned core unless the row says otherwise; medians of one interleaved run of a file"
    return f"{markdown(head, lines)}\n\n{caption(*sources, note=note)}"


def zen4() -> str:
    """Compare the contestants on Zen 4."""
    lines = _lines(MODELS["deit_tiny"], _runs("deit_tiny-zen4")[1, 1])
    head = ["milliseconds, ratio: vitq's time / theirs", *CONTESTANTS.values()]
    keep = [i for i in range(len(head)) if i == 0 or any(line[i] for line in lines)]
    lines = [[line[i] for i in keep] for line in lines]
    return f"{markdown([head[i] for i in keep], lines)}\n\n{caption('deit_tiny-zen4')}"


def _peak_shares(name: str) -> dict[str, float]:
    profile = read(name)["profiles"][0]
    return {kernel["name"]: kernel["peak_share"] for kernel in profile["kernels"]}


def peak_shares() -> str:
    """Give every large kernel's share of the processor's measured peak."""
    rows_of_tiny = read("deit_tiny-profile")["rows"]
    shares = [{row["kernel"]: row["peak_share"] for row in rows_of_tiny}]
    shares += [_peak_shares("deit_small"), _peak_shares("deit_base")]
    lines = [
        [what, *(f"{share[kernel]:.0%}".replace("%", " %") for share in shares)]
        for kernel, what in KERNELS.items()
    ]
    without = [row_of("peak-without-gelu", model=model)["share"] for model in MODELS]
    lines.insert(3, ["MLP 1 without GELU", *(f"{s:.0%}".replace("%", " %") for s in without)])
    note = "Share of the peak that is measured beside it, epilogue included"
    sources = caption("deit_tiny-profile", "deit_small", "deit_base", note=note)
    return f"{markdown(['kernel', *MODELS.values()], lines)}\n\n{sources}"


def gpu_times(group: str = "runs") -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """(model, batch) -> contestant -> its first row."""
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for run in read("h200")[group]:
        for row in run:
            model = row["model"].removesuffix("_patch16_224")
            found.setdefault((model, row["batch"]), {}).setdefault(row["contestant"], row)
    return found


def _beside_tvm() -> dict[tuple[str, int], tuple[float, float]]:
    """(model, batch) -> TVM's milliseconds and how many times ours, in one run."""
    found = {}
    for run in read("h200")["runs"]:
        rows = {(row["model"].removesuffix("_patch16_224"), row["batch"], row["contestant"]): row
                for row in run}  # fmt: skip
        for model, batch, contestant in rows:
            if contestant == "tvm-fp32":
                theirs = rows[model, batch, contestant]["median_ms"]
                found[model, batch] = theirs, theirs / rows[model, batch, OWN]["median_ms"]
    return found


def gpu_latency() -> str:
    """Compare the contestants on an H200."""
    lines, tvm = [], _beside_tvm()
    for (model, batch), rows in gpu_times().items():
        own = rows[OWN]
        line = [MODELS[model], str(batch), f"**{milliseconds(own['median_ms'])}**",
                f"{own['images_per_s']:,.0f}"]  # fmt: skip
        for name in list(GPU_CONTESTANTS)[:3]:
            theirs = rows[name]["median_ms"]
            times = f" ({theirs / own['median_ms']:.2f} x)" if name == "torch-fp16" else ""
            line.append(milliseconds(theirs) + times)
        beside = tvm.get((model, batch))
        line.append(f"{milliseconds(beside[0])} ({beside[1]:.1f} x)" if beside else "")
        lines.append(line)
    head = ["model", "batch", "vitq int8, ms", "pictures/s", *GPU_CONTESTANTS.values()]
    gpu = read("h200")["gpu"].partition(",")[0]
    note = (
        f"{gpu}, GPU milliseconds for a batch, medians of 100 runs, contestants in turn; TVM's "
        "ratio is that of a run of its own. `h200.json` has p95 and `alone_ms`, which adds the "
        "time for launching. DeiT-Small has random weights, DeiT-Base weights of five values each"
    )
    return f"{markdown(head, lines)}\n\n{caption('h200', note=note)}"


GPU_KERNELS = {
    "qkv": ("linear", 1, 3),
    "projection + residual": ("linear_add", 1, 1),
    "MLP 1 + GELU": ("linear_gelu", 1, 4),
    "MLP 2 + residual": ("linear_add", 4, 1),
    "patch embedding": ("patch_embed", 0, 1),
    "attention, both products and Shiftmax": ("attention", 0, 0),
    "LayerNorm": ("layernorm", 1, 1),
}
"""Kernel -> family, inputs and outputs as multiples of the width (0: told by the family alone)."""
BEFORE = ("qkv", "projection", "mlp1", "mlp2", "patches", "attention", "layernorm")
WIDTHS = {"deit_tiny": 192, "deit_small": 384, "deit_base": 768}
GPU_BATCH, TOKENS = 32, 197


def _kernel(model: str, what: str) -> dict[str, Any]:
    """Find a kernel of the roofline at batch 32 by its family and shapes."""
    family, inputs, outputs = GPU_KERNELS[what]
    width = WIDTHS[model]
    for row in read("h200-kernels")["models"][model]["roofline"]:
        name, shape, _, result = row["task"].replace(",", "").split()[:4]
        if name != family or not shape.startswith(f"{GPU_BATCH}x"):
            continue
        wanted = (
            f"{GPU_BATCH}x{TOKENS}x{inputs * width}:",
            f"{GPU_BATCH}x{TOKENS}x{outputs * width}:",
        )
        if not inputs or (shape.startswith(wanted[0]) and result.startswith(wanted[1])):
            found: dict[str, Any] = row
            return found
    raise LookupError(f"no {what} of {model} at batch {GPU_BATCH}")


def gpu_shares() -> str:
    """Give every large kernel's share of the H200's int8 rate."""
    alone = read("h200-kernels")["torch_int_mm_ms"]
    lines = []
    for what, (_, inputs, outputs) in list(GPU_KERNELS.items())[:-1]:
        line = [what]
        for model in reversed(MODELS):
            row = _kernel(model, what)
            line.append(f"{row['share_of_int8_rate']:.0%}".replace("%", " %"))
        rows, width = GPU_BATCH * TOKENS, WIDTHS["deit_base"]
        if what == "patch embedding":
            key = f"{GPU_BATCH * (TOKENS - 1)}x{width}x{width}"
        else:
            key = f"{rows}x{outputs * width}x{inputs * width}"
        beside = alone.get(key)
        us = _kernel("deit_base", what)["us"]
        line.append(f"{us:.1f} us, {1000 * beside:.1f} us" if beside else f"{us:.1f} us")
        lines.append(line)
    rate = read("h200-kernels")["int8_macs_per_s"] / 1e12
    head = [f"batch {GPU_BATCH}, epilogue included", *(MODELS[m] for m in reversed(MODELS)),
            "DeiT-Base: ours, `torch._int_mm` alone on the same shape"]  # fmt: skip
    note = (
        f"Share of the int8 rate ({rate:.0f} T multiplications/s, `torch._int_mm`, 8192 cubed). "
        "The file has bytes, products, floor, time and schedule of every kernel"
    )
    return f"{markdown(head, lines)}\n\n{caption('h200-kernels', note=note)}"


def gpu_rewritten() -> str:
    """Give microseconds of the H200's kernels before and after they were rewritten."""
    lines = []
    for model in reversed(MODELS):
        before = row_of("h200-before", model=model)
        line = [MODELS[model]]
        for key, what in zip(BEFORE, GPU_KERNELS, strict=True):
            line.append(f"{before[key]:.1f}, {_kernel(model, what)['us']:.1f}")
        lines.append(line)
    note = "Microseconds, before and after"
    head = ["microseconds, batch 32", *GPU_KERNELS]
    return f"{markdown(head, lines)}\n\n{caption('h200-before', 'h200-kernels', note=note)}"


VARIANTS = {
    "before it (launched in order)": "vitq-int8, launched in order",
    "with the last block's end": "vitq-int8, next kernel with the last block",
    "behind the main loop": "vitq-int8, next kernel behind the main loop",
    "at once": "vitq-int8, next kernel at once",
    "at once, and blocks spread by their shared memory (`emit.spread`)": OWN,
}
VARIANT_RUNS = (("deit_tiny", 1), ("deit_tiny", 8), ("deit_tiny", 32), ("deit_small", 8),
                ("deit_small", 32), ("deit_base", 8))  # fmt: skip
VARIANTS_FROM = 1
"""`earlier` begins with a run of older kernels, which is none of the variants'."""


def gpu_launches() -> str:
    """Give the times of models by when the next kernel may begin."""
    times: dict[tuple[str, int], dict[str, float]] = {}
    for run in read("h200")["earlier"][VARIANTS_FROM:]:
        for row in run:
            key = row["model"].removesuffix("_patch16_224"), row["batch"]
            times.setdefault(key, {}).setdefault(row["contestant"], row["median_ms"])
    lines = []
    for what, variant in VARIANTS.items():
        found = [times[key].get(variant) for key in VARIANT_RUNS]
        lines.append([what, *("" if ms is None else milliseconds(ms) for ms in found)])
    head = ["next kernel begins", *(f"{MODELS[m]}, {batch}" for m, batch in VARIANT_RUNS)]
    note = "Milliseconds of whole models at a batch size, of the kernels of that time (`earlier`)"
    return f"{markdown(head, lines)}\n\n{caption('h200', note=note)}"


def avx2_tuning() -> str:
    """Give DeiT-Small's latency at the AVX2 level with and without tuning."""
    names = {"vitq-int8-tuned": "with the tuning log", "vitq-int8-untuned": "analytic defaults"}
    times = {row["name"]: row["median_ms"] for row in read("deit_small-avx2")["rows"]}
    lines = [[what, milliseconds(times[name])] for name, what in names.items()]
    note = "DeiT-Small, one pinned core, batch 1, `TARGET=x86-avx2`"
    return f"{markdown(['schedules', 'ms'], lines)}\n\n{caption('deit_small-avx2', note=note)}"
