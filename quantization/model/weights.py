"""Load weights into a model, and say what was taken, changed and left.

    file -> state dicts (`state_dicts`) -> names that fit (`fitting`) -> values that can be used

Names that do not fit are tried once more as other libraries spell them: by the loader that the
model's own library has (timm's also resamples position embeddings, Transformers knows its old
names), and for a model of timm by `layouts`.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.exporting import quiet
from vitq.quantization.model.checkpoints import read_checkpoint
from vitq.quantization.model.fitting import Fit, describe, fit, listed, remedy
from vitq.quantization.model.layouts import to_timm
from vitq.quantization.model.state_dicts import StateDict, choose, find_state_dicts

logger = logging.getLogger(__name__)

State = dict[str, torch.Tensor]
LISTED = 6
LIBRARIES = ("timm", "transformers")


PART = "_vitq_is_part"
"""Mark of a module that is a part of what the file holds: other names of it are not read."""


def read_weights(path: Path, key: str | None = None) -> State:
    """Read the state dict that is taken where no model is at hand to try them on.

    Args:
        path: file, index of shards, or folder; see `quantization.model.weight_files`.
        key: path of a state dict in it; None for the first of `quantization.model.state_dicts`.

    Returns:
        Parameter name -> tensor.

    Raises:
        VitqError: if the file cannot be read or holds no state dict.
    """
    found = find_state_dicts(read_checkpoint(path))
    chosen = choose(path, found, key)[0]
    _say(path, chosen, found, key)
    return dict(chosen.tensors)


def load_weights(
    module: torch.nn.Module, path: Path, key: str | None = None, named: bool = False
) -> None:
    """Load weights strictly; what does not fit is listed.

    Args:
        module: gets them.
        path: as of `read_weights`.
        key: path of a state dict in the file; None for the first that fits.
        named: whether the module was made by a name of timm.

    Raises:
        VitqError: missing, unexpected or misshapen names, values that are no float weights.
    """
    found = find_state_dicts(read_checkpoint(path))
    candidates = choose(path, found, key)
    own = module.state_dict()
    first: Fit | None = None
    for one in candidates:
        best = _best_fit(module, own, one.tensors)
        if best.is_exact:
            notes = _check_values(path, own, best)
            _load(module, path, best)
            _say(path, one, found, key, best, notes)
            return
        first = first or best
    assert first is not None
    others = [one.title for one in candidates[1:]]
    tried = f"; nor do {', '.join(others[:LISTED])} in the file" if others else ""
    raise VitqError(
        f"weights {path} do not fit the model: {describe(first, own)}{tried}: "
        f"{remedy(first, own, named)}"
    )


def _best_fit(module: torch.nn.Module, own: Mapping[str, torch.Tensor], state: State) -> Fit:
    """Return the first exact match of the names as they are and as others spell them."""
    best = fit(own, state)
    if getattr(module, PART, False) and not (best.missing or best.misshapen):
        best = replace(best, extra=(), beside=(*best.beside, *best.extra))
    if best.is_exact:
        return best
    for convert in (_by_own_library, _by_layout):
        for source in _sources(state, best.prefix):
            converted = convert(module, source)
            if converted is None:
                continue
            changed, note = converted
            other = fit(own, changed)
            if other.is_exact or (other.distance < best.distance):
                best = replace(other, notes=(*note, *_resized(source, other)))
            if best.is_exact:
                return best
    return best


def _sources(state: State, prefix: str) -> Iterator[State]:
    """Names as they are, and without the best prefix."""
    yield state
    if prefix:
        yield {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _by_own_library(module: torch.nn.Module, state: State) -> tuple[State, tuple[str, ...]] | None:
    """Let the model's own library convert names and sizes, if it can."""
    library = type(module).__module__.partition(".")[0]
    convert: dict[str, Callable[[torch.nn.Module, State], State | None]] = {
        "timm": _by_timm,
        "transformers": _by_transformers,
    }
    if library not in convert:
        return None
    try:
        changed = convert[library](module, state)
    except Exception as error:  # its loader is made for its own files; the plain fit is refused
        logger.debug("%s's own loader refused the weights: %s", library, error)
        return None
    return (
        None
        if changed is None
        else (changed, (f"names and sizes by the loader of {library} itself",))
    )


def _by_timm(module: torch.nn.Module, state: State) -> State | None:
    home = sys.modules[type(module).__module__]
    convert = getattr(home, "checkpoint_filter_fn", None)
    return None if convert is None else dict(convert(dict(state), module))


def _by_transformers(module: torch.nn.Module, state: State) -> State | None:
    """Load through ``from_pretrained``, which knows the names of former versions.

    Returns:
        The model's names; of what does not fit, the file's shapes, to be described.
    """
    load = getattr(type(module), "from_pretrained", None)
    if load is None:
        return None
    with quiet():
        loaded, report = load(
            None, config=module.config, state_dict=dict(state), output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    missing = set(report["missing_keys"])
    found = {name: v for name, v in loaded.state_dict().items() if name not in missing}
    found |= {name: torch.empty(shape) for name, shape, *_ in report["mismatched_keys"]}
    return found | {name: state.get(name, torch.empty(0)) for name in report["unexpected_keys"]}


def _by_layout(module: torch.nn.Module, state: State) -> tuple[State, tuple[str, ...]] | None:
    """Rename another library's names; positions of another size are then the own library's."""
    renamed = to_timm(state)
    if renamed is None:
        return None
    library, changed = renamed
    note = f"{library}'s names as timm's"
    resized = _by_own_library(module, changed)
    return (changed, (note,)) if resized is None else (resized[0], (note,))


def _resized(before: State, after: Fit) -> Iterator[str]:
    """Say which tensors have another size now."""
    for name, tensor in after.tensors.items():
        old = before.get(name)
        if old is not None and old.ndim > 1 and old.shape != tensor.shape:
            yield f"{name} resampled from {tuple(old.shape)} to {tuple(tensor.shape)}"


def _check_values(path: Path, own: Mapping[str, torch.Tensor], found: Fit) -> list[str]:
    """Refuse tensors that are no float weights; say which are stored in another width."""
    widths: dict[torch.dtype, int] = {}
    for name, tensor in found.tensors.items():
        problem = _problem(tensor, own[name])
        if problem is not None:
            raise VitqError(f"weights {path}: {name} {problem}")
        if tensor.is_floating_point() and tensor.dtype != own[name].dtype:
            widths[tensor.dtype] = widths.get(tensor.dtype, 0) + 1
    return [f"{n} tensors of {_short(dtype)} became float32" for dtype, n in widths.items()]


def _problem(tensor: torch.Tensor, own: torch.Tensor) -> str | None:
    """Why a tensor cannot be a model's weight, and what to do; None if it can."""
    if tensor.is_meta:
        return "has no values (device meta): save the weights after they are loaded"
    if tensor.is_quantized:
        return f"is quantized by torch ({_short(tensor.dtype)}): give the float model's weights"
    if tensor.layout != torch.strided:
        return f"is sparse ({tensor.layout}): save it as tensor.to_dense()"
    if tensor.is_complex():
        return "is complex: give real weights"
    if own.is_floating_point() and not tensor.is_floating_point():
        return f"holds {_short(tensor.dtype)}, no floats: give the float model's weights"
    if tensor.is_floating_point():
        bad = int((~torch.isfinite(tensor.float())).sum())
        if bad:
            return f"holds {bad} values that are NaN or infinite: the training diverged, or a cast"
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _load(module: torch.nn.Module, path: Path, found: Fit) -> None:
    try:
        module.load_state_dict(found.tensors)
    except Exception as error:  # a hook of the user's module
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise VitqError(f"weights {path} were refused by the model itself: {line}") from error


def _is_rival(one: StateDict, taken: StateDict) -> bool:
    """Whether another state dict is about as large, and so may be another model's state."""
    return one.path != taken.path and 2 * len(one.tensors) > len(taken.tensors)


def _say(
    path: Path,
    taken: StateDict,
    found: list[StateDict],
    key: str | None,
    how: Fit | None = None,
    notes: list[str] | None = None,
) -> None:
    """Tell what was taken of a file, how, and what else is there."""
    facts = [f"{len(taken.tensors if how is None else how.tensors)} tensors of {taken.title}"]
    if how is not None:
        facts += [f"without the prefix {how.prefix}"] * bool(how.prefix)
        facts += [*how.notes, *(notes or ())]
        facts += [listed(how.beside, "left out")] * bool(how.beside)
    facts += [f"also in it: {', '.join(taken.others[:LISTED])}"] * bool(taken.others)
    logger.info("weights: %s: %s", path, "; ".join(facts))
    if key is not None:
        return
    prefixes = [
        ".".join(filter(None, (taken.path, p.rstrip(".")))) for p in (how.rivals if how else ())
    ]
    others = [one.path for one in found if one.path and _is_rival(one, taken)] + prefixes
    if others:
        average = " (EMA: averaged weights, often the better ones)"
        marked = [name + average * ("ema" in name.lower()) for name in others[:LISTED]]
        logger.warning(
            "weights: %s also holds %s; taken is %s: --weights-key %s takes another",
            path, ", ".join(marked), taken.title, others[0],
        )  # fmt: skip
