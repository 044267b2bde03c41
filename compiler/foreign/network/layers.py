"""Operators with weights, norms, attention, pooling and resizing."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.compiler.foreign.network.call import Call, operator
from vitq.compiler.foreign.network.values import numbers
from vitq.numerics.errors import VitqError


@operator("MatMul")
def matmul(call: Call) -> torch.Tensor:
    """Multiply matrices."""
    return torch.matmul(call.x(), call.x(1))


@operator("com.microsoft.FusedMatMul")
def fused_matmul(call: Call) -> torch.Tensor:
    """Multiply matrices, transposed or not, by a number."""
    a, b = call.x(), call.x(1)
    a = a.transpose(-1, -2) if call.get("transA", 0) else a
    b = b.transpose(-1, -2) if call.get("transB", 0) else b
    return torch.matmul(a, b) * call.get("alpha", 1.0)


@operator("Gemm")
def gemm(call: Call) -> torch.Tensor:
    """Apply a linear layer: alpha A B + beta C."""
    a, b = call.x(), call.x(1)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    a = a.t() if call.get("transA", 0) else a
    weight = b if call.get("transB", 0) else b.t()
    if (alpha, beta) == (1.0, 1.0) and (not call.has(2) or call.x(2).ndim == 1):
        return F.linear(a, weight, call.x(2) if call.has(2) else None)
    found = F.linear(a, weight * alpha)
    return found + beta * call.x(2) if call.has(2) else found


@operator("Einsum")
def einsum(call: Call) -> torch.Tensor:
    """Sum of products."""
    return torch.einsum(call.get("equation"), *(call.x(i) for i in range(len(call.operands))))


def _paddings(call: Call, rank: int, size: list[int]) -> list[int]:
    """Return what is added around each axis, as the attribute has it: all befores, then afters."""
    auto = call.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * 2 * rank
    if auto == "NOTSET":
        return list(call.get("pads") or [0] * 2 * rank)
    strides, dilations = _each(call, "strides", rank), _each(call, "dilations", rank)
    x = call.x()
    befores, afters = [], []
    for i in range(rank):
        length = int(x.shape[2 + i])
        reach = (size[i] - 1) * dilations[i] + 1
        total = max((-(-length // strides[i]) - 1) * strides[i] + reach - length, 0)
        less = total // 2
        befores.append(less if auto == "SAME_UPPER" else total - less)
        afters.append(total - befores[-1])
    return befores + afters


def _each(call: Call, name: str, rank: int) -> list[int]:
    """Return a number for each axis of the picture."""
    return [int(n) for n in call.get(name) or [1] * rank]


def _padded(x: torch.Tensor, pads: list[int], value: float = 0.0) -> tuple[torch.Tensor, list[int]]:
    """Return a tensor and paddings that are the same on both sides: what is not is added."""
    rank = len(pads) // 2
    befores, afters = pads[:rank], pads[rank:]
    if befores == afters:
        return x, befores
    flat = [n for pair in reversed(list(zip(befores, afters, strict=True))) for n in pair]
    return F.pad(x, flat, value=value), [0] * rank


@operator("Conv")
def conv(call: Call) -> torch.Tensor:
    """Convolve."""
    weight = call.x(1)
    rank = weight.ndim - 2
    if rank not in (1, 2):
        raise VitqError(f"Conv over {rank} axes")
    x, padding = _padded(call.x(), _paddings(call, rank, [int(n) for n in weight.shape[2:]]))
    convolve: Any = F.conv2d if rank == 2 else F.conv1d
    found: torch.Tensor = convolve(
        x,
        weight,
        call.x(2) if call.has(2) else None,
        stride=_each(call, "strides", rank),
        padding=padding,
        dilation=_each(call, "dilations", rank),
        groups=call.get("group", 1),
    )
    return found


@operator("ConvTranspose")
def conv_transpose(call: Call) -> torch.Tensor:
    """Convolve backwards."""
    pads = list(call.get("pads") or [0] * 4)
    if pads[:2] != pads[2:] or call.get("output_shape") or call.x(1).ndim != 4:
        raise VitqError("ConvTranspose in this form")
    return F.conv_transpose2d(
        call.x(),
        call.x(1),
        call.x(2) if call.has(2) else None,
        stride=_each(call, "strides", 2),
        padding=pads[:2],
        output_padding=list(call.get("output_padding") or [0, 0]),
        groups=call.get("group", 1),
        dilation=_each(call, "dilations", 2),
    )


@operator("BatchNormalization")
def batch_norm(call: Call) -> torch.Tensor:
    """Normalize by what was seen in training."""
    return F.batch_norm(
        call.x(), call.x(3), call.x(4), call.x(1), call.x(2), eps=call.get("epsilon", 1e-5)
    )


@operator("LayerNormalization")
def layer_norm(call: Call) -> torch.Tensor:
    """Normalize over the last axes."""
    x = call.x()
    axis = call.get("axis", -1) % x.ndim
    sizes = [int(n) for n in x.shape[axis:]]
    bias = call.x(2) if call.has(2) else None
    return F.layer_norm(x, sizes, call.x(1), bias, call.get("epsilon", 1e-5))


@operator("com.microsoft.SkipLayerNormalization")
def skip_layer_norm(call: Call) -> list[torch.Tensor | None]:
    """Normalize a sum, which may be read, too: operands x, skip, gamma, beta, bias."""
    x = call.x() + call.x(1)
    x = x + call.x(4) if call.has(4) else x
    bias = call.x(3) if call.has(3) else None
    size = [int(x.shape[-1])]
    return [F.layer_norm(x, size, call.x(2), bias, call.get("epsilon", 1e-12)), None, None, x]


@operator("RMSNormalization")
def rms_norm(call: Call) -> torch.Tensor:
    """Normalize by the root of the mean square."""
    x = call.x()
    axis = call.get("axis", -1) % x.ndim
    return F.rms_norm(x, [int(n) for n in x.shape[axis:]], call.x(1), call.get("epsilon", 1e-5))


@operator("InstanceNormalization", "GroupNormalization")
def group_norm(call: Call) -> torch.Tensor:
    """Normalize groups of channels."""
    x = call.x()
    groups = call.get("num_groups", int(x.shape[1]))
    return F.group_norm(x, groups, call.x(1), call.x(2), call.get("epsilon", 1e-5))


@operator("LpNormalization")
def unit_norm(call: Call) -> torch.Tensor:
    """Divide by the length."""
    if call.get("p", 2) != 2:
        raise VitqError("LpNormalization of another norm than 2")
    return F.normalize(call.x(), dim=call.get("axis", -1))


@operator("Attention")
def attention(call: Call) -> torch.Tensor:
    """Scaled dot-product attention of opset 23; q, k, v of (B, H, N, D) or (B, N, H D)."""
    q, k, v = call.x(), call.x(1), call.x(2)
    flat = q.ndim == 3
    if flat:
        q = _heads(q, call.get("q_num_heads"))
        k, v = (_heads(t, call.get("kv_num_heads")) for t in (k, v))
    if call.has(4) or call.get("softcap", 0.0) or k.shape[1] != q.shape[1]:
        raise VitqError("Attention with a cache, a soft cap or grouped heads")
    mask = call.x(3) if call.has(3) else None
    found = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=bool(call.get("is_causal", 0)), scale=call.get("scale")
    )
    return found.transpose(1, 2).flatten(2) if flat else found


def _heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """(B, N, H D) -> (B, H, N, D)."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


@operator("com.microsoft.Attention", "com.microsoft.MultiHeadAttention")
def fused_attention(call: Call) -> torch.Tensor:
    """Attention as onnxruntime's optimizer writes it: with the layer of q, k, v, or without."""
    count = call.get("num_heads")
    whole = call.op.endswith(".Attention")
    if any(call.has(i) for i in (range(3, 7) if whole else range(4, 8))):
        raise VitqError(f"{call.op} with a mask, a bias of the scores or a cache")
    if whole:
        q, k, v = F.linear(call.x(), call.x(1).t(), call.x(2)).chunk(3, -1)
    else:
        q, k, v = call.x(), call.x(1), call.x(2)
        if call.has(3):
            q, k, v = (t + b for t, b in zip((q, k, v), call.x(3).chunk(3), strict=True))
    found = F.scaled_dot_product_attention(
        _heads(q, count), _heads(k, count), _heads(v, count), scale=call.get("scale")
    )
    return found.transpose(1, 2).flatten(2)


@operator("MaxPool", "AveragePool")
def pool(call: Call) -> torch.Tensor:
    """Pool windows."""
    kernel = list(call.get("kernel_shape"))
    if len(kernel) != 2:
        raise VitqError(f"{call.op} over {len(kernel)} axes")
    strides, ceil = _each(call, "strides", 2), bool(call.get("ceil_mode", 0))
    pads = _paddings(call, 2, kernel)
    if call.op == "MaxPool":
        x, padding = _padded(call.x(), pads, -torch.inf)
        return F.max_pool2d(x, kernel, strides, padding, _each(call, "dilations", 2), ceil)
    counts = bool(call.get("count_include_pad", 0))
    if pads[:2] != pads[2:] and not counts:
        raise VitqError("AveragePool with other paddings before than after")
    x, padding = _padded(call.x(), pads)
    return F.avg_pool2d(x, kernel, strides, padding, ceil, counts)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> torch.Tensor:
    """Pool each channel's pixels."""
    x = call.x()
    axes = list(range(2, x.ndim))
    return x.mean(axes, True) if call.op == "GlobalAveragePool" else x.amax(axes, True)


@operator("Resize", "Upsample")
def resize(call: Call) -> torch.Tensor:
    """Resize pictures as PyTorch does; other coordinates are refused."""
    x = call.x()
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[
        call.get("mode", "nearest")
    ]
    where = call.get("coordinate_transformation_mode", "half_pixel")
    sizes = numbers(call.host(3)) if call.has(3) else None
    if sizes is None:
        last = 1 if call.op == "Upsample" or call.opset < 11 else 2
        scales = numbers(call.host(last)) if call.has(last) else call.get("scales")
        by: dict[str, Any] = {"scale_factor": [float(s) for s in scales[2:]]}
        sizes = [int(np.floor(n * s)) for n, s in zip(x.shape[2:], scales[2:], strict=True)]
    else:
        sizes = [int(n) for n in sizes[2:]]
        by = {"size": sizes}
    corners = where == "align_corners"
    usual = ("half_pixel", "pytorch_half_pixel", "asymmetric") if mode == "nearest" else (
        "half_pixel", "pytorch_half_pixel", "align_corners")  # fmt: skip
    if where not in usual or (mode == "bicubic" and call.get("cubic_coeff_a", -0.75) != -0.75):
        raise VitqError(f"Resize ({call.get('mode', 'nearest')}) at coordinates {where}")
    if mode == "nearest":
        times = [n % int(have) for n, have in zip(sizes, x.shape[2:], strict=True)]
        if any(times):
            raise VitqError("Resize (nearest) by another factor than a whole number")
        return F.interpolate(x, size=sizes, mode=mode)
    return F.interpolate(
        x, mode=mode, align_corners=corners, antialias=bool(call.get("antialias", 0)), **by
    )
