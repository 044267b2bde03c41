"""FoldLayernormScales: per-channel activation scales move into gamma, beta and the next weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.expressions import (
    Expr,
    bindings_of,
    constant,
    is_constant,
    op_name,
    shape_of,
    uses_of,
)
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import (
    QUANTIZERS,
    Quantizer,
    quantize_call,
    read_dequantize,
    read_quantize,
)
from vitq.relay_passes.rewriting import BindingPass

WEIGHT_MAX = 127


@dataclass(frozen=True)
class Plan:
    """One reparameterization.

    Attributes:
        ratio: r1 = s / s~, (C,).
        offset: s * r2 = s * (z - z~), (C,), in real units.
        qparams: s~ and z~.
        dtype: of the codes.
    """

    ratio: FloatArray
    offset: FloatArray
    qparams: QuantParams
    dtype: str


class FoldLayernormScales(BindingPass):
    """Replaces a per-channel quantizer behind layer_norm by a per-tensor one (RepQ-ViT).

    After RepQ-ViT (arXiv:2212.08254, Eq. 8 to 13). Before::

        x = dequantize(quantize(layer_norm(h, gamma, beta), s[c], z[c]));  matmul(x, W)

    After, with ``s~ = mean(s)``, ``z~ = round(mean(z))``, ``r1 = s / s~``, ``r2 = z - z~``::

        gamma' = gamma / r1,  beta' = (beta + s * r2) / r1
        matmul(x', dequantize(int8(r1 * W))) - (s * r2) @ W

    The codes do not change; the weights are rounded to int8 per output channel (symmetric, largest
    weight at 127) after the ratio is in them, which is why this must come before any quantization
    of the weights. Deviation from the paper: the weights' quantizer is the plain largest value.

    Refuses weights that are quantized already, and an activation that anything but matmul reads.
    """

    requires = (Property.CLIPS_FOLDED,)
    ensures = (Property.NORM_SCALES_FOLDED,)

    def __init__(self) -> None:
        """Begin without plans."""
        super().__init__()
        self._plans: dict[Expr, Plan] = {}

    def prepare(self, function: Expr) -> None:
        """Plan every reparameterization before the walk changes anything."""
        definitions = {b.var: b.value for b in bindings_of(function)}
        uses = uses_of(function)
        for binding in bindings_of(function):
            quantizer = read_quantize(binding.value)
            if quantizer is None or quantizer.is_per_tensor:
                continue
            norm = definitions.get(quantizer.data)
            if norm is None or op_name(norm) != "relax.nn.layer_norm":
                continue
            try:
                readers = _readers(binding, quantizer, norm, uses)
            except DeclineError as reason:
                self._decline(binding, str(reason))
                continue
            plan = _plan(quantizer)
            self._plans.update({var: plan for var in (quantizer.data, binding.var, *readers)})

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        plan = self._plans.get(var)
        if plan is None:
            return None
        name = op_name(value)
        if name in QUANTIZERS:
            quantizer = ctx.quantizer(value)
            assert quantizer is not None, "planned from its parameters"
            return quantize_call(quantizer.data, plan.qparams, plan.dtype)
        if name == "relax.dequantize":
            zero_point = constant(plan.qparams.zero_point.astype(plan.dtype))
            scale = constant(plan.qparams.scale)
            return relax.op.dequantize(value.args[0], scale, zero_point, out_dtype="float32")
        if name == "relax.matmul":
            return _matmul(value, plan, ctx)
        gamma, beta = (arg.value.numpy().astype(np.float64) for arg in value.args[1:3])
        gamma, beta = gamma / plan.ratio, (beta + plan.offset) / plan.ratio
        arrays = [constant(a.astype(np.float32)) for a in (gamma, beta)]
        return relax.Call(value.op, [value.args[0], *arrays], value.attrs, value.ty_args)


def _readers(
    binding: Any, quantizer: Quantizer, norm: Expr, uses: dict[Expr, list[Any]]
) -> list[Expr]:
    """Return the dequantize and matmul variables behind a per-channel quantizer."""
    if quantizer.axis != len(shape_of(norm)) - 1:
        raise DeclineError("the scales do not lie along the last axis")
    if not all(is_constant(arg) for arg in norm.args[1:3]):
        raise DeclineError("gamma or beta is not constant")
    if len(uses[quantizer.data]) != 1:
        raise DeclineError("something else reads the layer normalization")
    found: list[Expr] = []
    for reader in uses.get(binding.var, []):
        codes = read_dequantize(reader.value)
        if codes is None or not np.array_equal(codes.scale, quantizer.qparams.scale):
            raise DeclineError(f"{op_name(reader.value)} reads the codes")
        found.append(reader.var)
        for product in uses.get(reader.var, []):
            call = product.value
            if op_name(call) != "relax.matmul" or call.args[0] != reader.var:
                raise DeclineError(f"{op_name(call)} reads the activation")
            if not is_constant(call.args[1]) or len(shape_of(call.args[1])) != 2:
                raise DeclineError("the weights are already quantized: too late to rescale them")
            found.append(product.var)
    return found


def _plan(quantizer: Quantizer) -> Plan:
    """s~, z~ and what they change."""
    qparams = quantizer.qparams
    scale = qparams.scale.astype(np.float64)
    common_scale = np.asarray(scale.mean(), np.float32)
    common_zero_point = np.asarray(np.rint(qparams.zero_point.mean()), np.int32)
    common = QuantParams(common_scale, common_zero_point, qparams.qmin, qparams.qmax)
    offset = scale * (qparams.zero_point - common_zero_point)
    return Plan(scale / float(common_scale), offset, common, quantizer.dtype)


def _matmul(call: Expr, plan: Plan, ctx: Context) -> Expr:
    """Return the product with rescaled int8 weights, minus what the zero points moved."""
    weight = call.args[1].value.numpy().astype(np.float64)  # (K, N)
    scaled = weight * plan.ratio[:, None]
    largest = np.abs(scaled).max(axis=0)
    scale = np.where(largest > 0, largest / WEIGHT_MAX, 1.0).astype(np.float32)
    codes = np.clip(np.rint(scaled / scale), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    real = relax.op.dequantize(
        constant(codes), constant(scale), constant(np.zeros_like(scale, np.int8)), axis=1
    )
    product = relax.op.matmul(call.args[0], ctx.emit(real, "weight"))
    shift = constant((-(plan.offset @ weight)).astype(np.float32))
    return relax.op.add(ctx.emit(product, "product"), shift)
