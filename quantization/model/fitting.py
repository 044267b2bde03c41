"""Match the names in a state dict with a module's.

    backbone.blocks.0.norm1.weight   ->   blocks.0.norm1.weight      prefix "backbone."
    head.mlp.0.weight                     beside: said
    backbone.blocks.12.norm1.weight       extra: refused

The prefix is the one under which most of the module's names are found, whatever it is called and
however many are stacked. What lies beside it belongs to something else (a loss, a projection head)
and is left out. What lies under it and has no place in the module means another architecture, and
the weights are refused: except for `HARMLESS`, which no classifier computes with.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

HARMLESS = re.compile(
    r"(.*\.)?(mask_token|position_ids|num_batches_tracked|total_ops|total_params|n_averaged)"
    r"|decoder_.*"
)
"""Names of a masked autoencoder's decoder, of counters and of constants."""
CLASSIFIER = re.compile(r"(head|fc|head_dist|heads|classifier|cls_classifier)\..*")
QUANTIZER = re.compile(r".*(zero_point|_packed_params.*|fake_quant.*|observer.*|qweight|qzeros)")
DISTILLED = re.compile(r"dist_token|head_dist\..*")
RANKED = ("", "model", "module", "net", "backbone", "teacher", "encoder")
LISTED = 4


@dataclass(frozen=True)
class Fit:
    """How well weights fit.

    Attributes:
        prefix: that was taken off, with its dot.
        tensors: of the module's names.
        missing: the module's names that the weights lack.
        extra: names under the prefix that the module lacks.
        beside: names without the prefix, and harmless ones.
        misshapen: the module's names whose tensors have another shape.
        rivals: other prefixes that would fit as well.
        notes: what was done to make it fit.
    """

    prefix: str
    tensors: dict[str, torch.Tensor]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    beside: tuple[str, ...]
    misshapen: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether the weights can be loaded."""
        return not (self.missing or self.extra or self.misshapen)

    @property
    def distance(self) -> int:
        """How many names are wrong."""
        return len(self.missing) + len(self.extra) + len(self.misshapen)


def fit(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> Fit:
    """Match names as they are, or under a prefix.

    Args:
        own: the module's state dict.
        state: what was read.

    Returns:
        The best match.
    """
    counts = Counter(
        name[: len(name) - len(suffix)]
        for name in state
        for suffix in _suffixes(name)
        if suffix in own
    )
    most = max(counts.values(), default=0)
    equal = sorted((p for p, count in counts.items() if count == most), key=_rank) or [""]
    best = _under(own, state, equal[0])
    return replace(best, rivals=tuple(equal[1:])) if best.is_exact else best


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _rank(prefix: str) -> tuple[bool, int, int, str]:
    parts = prefix.rstrip(".").split(".")
    known = max(RANKED.index(part) if part in RANKED else len(RANKED) for part in parts)
    return "ema" in prefix.lower(), known, len(parts), prefix


def _under(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], prefix: str) -> Fit:
    under = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    headless = not any(CLASSIFIER.fullmatch(name) for name in own)

    def harmless(name: str) -> bool:
        return bool(HARMLESS.fullmatch(name) or (headless and CLASSIFIER.fullmatch(name)))

    unknown = [name for name in under if name not in own]
    return Fit(
        prefix,
        {name: under[name] for name in own if name in under},
        tuple(name for name in own if name not in under),
        tuple(name for name in unknown if not harmless(name)),
        (
            *(name for name in state if not name.startswith(prefix)),
            *(prefix + name for name in unknown if harmless(name)),
        ),
        tuple(name for name in own if name in under and under[name].shape != own[name].shape),
    )


def describe(one: Fit, own: Mapping[str, torch.Tensor]) -> str:
    """Say what does not fit, in a line."""
    shapes = [
        f"{name} {tuple(one.tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in one.misshapen
    ]
    problems: tuple[tuple[Sequence[str], str], ...] = (
        (one.missing, "missing"),
        (one.extra, "unexpected"),
        (shapes, "of another shape"),
    )
    under = f" (under the prefix {one.prefix})" if one.prefix else ""
    return "; ".join(f"{listed(keys, what)}" for keys, what in problems if keys) + under


def listed(keys: Sequence[str], what: str) -> str:
    """``3 missing: a, b, c``."""
    return f"{len(keys)} {what}: {', '.join(keys[:LISTED])}{', ...' * (len(keys) > LISTED)}"


def remedy(one: Fit, own: Mapping[str, torch.Tensor], named: bool) -> str:
    """Say what can be done about weights that do not fit; empty if nothing is known.

    Args:
        one: the best match.
        own: the module's state dict.
        named: whether the module was made by a name of timm, which takes ``--num-classes``.
    """
    if any(QUANTIZER.fullmatch(name) for name in one.extra):
        return "this is a quantizer's state: give the float model's weights"
    classes = _classes(one, own)
    if classes is not None and not one.missing:
        way = f"pass --num-classes {classes}" if named else f"let the model have {classes}"
        return f"the file's classifier has {classes} classes: {way}"
    if one.missing and all(CLASSIFIER.fullmatch(name) for name in one.missing):
        choice = ", or --num-classes 0 for its features" if named else ""
        return f"the file has no classifier: give the weights of a classifier{choice}"
    if any(DISTILLED.fullmatch(name) for name in one.extra):
        return "the file is of a distilled model: give its name, such as deit_*_distilled_*"
    if not one.extra and any("pos" in name and "embed" in name for name in one.misshapen):
        return "the file is for pictures of another size: give the model's size that fits it"
    if not one.tensors:
        return "the file is of another model, or its names are another library's"
    return "is the model's name the one that was trained?"


def _classes(one: Fit, own: Mapping[str, torch.Tensor]) -> int | None:
    """Return the number of classes in the file, if that is all that differs."""
    pairs = [(one.tensors[name].shape, own[name].shape) for name in one.misshapen]
    if any(a[1:] != b[1:] or len(a) == 0 for a, b in pairs):
        return None
    found = {a[0] for a, _ in pairs}
    return found.pop() if len(found) == 1 and len(pairs) <= 4 else None
