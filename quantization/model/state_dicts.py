"""The state dicts in a checkpoint: found, named, and one of them chosen.

    {"epoch": 3, "model": {...}, "model_ema": {...}, "optimizer": {...}}
                 taken           said                 never

A state dict is a dict with names for keys and tensors among its values. Its own name is the path of
keys that leads to it, with dots: ``model``, ``teacher.backbone``.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitq.numerics.errors import VitqError

DEPTH = 4
"""Dicts in dicts that are looked into."""
LISTED = 6
TOP = "the top level"
NAMES = ("state_dict", "model", "model_state", "module", "net", "network", "teacher", "")
"""What is taken where there are several, the first first; DINO's own evaluation takes the teacher.
Averages (EMA) come last, since whether they are better only their owner knows."""
EMA = "ema"
NEVER = ("optim", "sched", "lr_", "scaler", "loss", "criterion", "hyper_parameters")
"""Beginnings of keys under which trainers store other tensors than weights; whole ones below."""
OTHERS = frozenset({"amp", "callbacks", "loops", "rng", "args", "config", "meta", "message_hub"})
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Names that torch.compile, FSDP and checkpointing put between a module's and its child's."""


@dataclass(frozen=True)
class StateDict:
    """One of those in a file.

    Attributes:
        path: keys that lead to it, with dots; empty for the file's own dict.
        tensors: name -> tensor.
        others: names of what else it holds.
    """

    path: str
    tensors: dict[str, torch.Tensor]
    others: tuple[str, ...]

    @property
    def title(self) -> str:
        """What people call it."""
        return self.path or TOP

    @property
    def is_average(self) -> bool:
        """Whether it holds averages of weights rather than weights."""
        return EMA in self.path.lower()


def find_state_dicts(content: Any) -> list[StateDict]:
    """Find every state dict.

    Args:
        content: of a file.

    Returns:
        All, those that are taken first in front.
    """
    found = list(_walk(content, (), DEPTH))
    most = max((len(one.tensors) for one in found), default=0)
    return sorted(found, key=lambda one: (_rank(one, most), one.path.count(".")))


def _walk(content: Any, path: tuple[str, ...], depth: int) -> Iterator[StateDict]:
    if not isinstance(content, Mapping):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if len(named) < len(content):
        return  # an optimizer numbers its parameters
    values = {key: _as_tensor(value) for key, value in named.items()}
    tensors = {key: value for key, value in values.items() if value is not None}
    if tensors:
        inner = [key for key, value in named.items() if isinstance(value, Mapping)]
        others = tuple(key for key in named if key not in tensors and key not in inner)
        unwrapped = {_without_wrappers(key): value for key, value in tensors.items()}
        yield StateDict(".".join(path), unwrapped, others)
    for key, value in named.items():
        if depth > 1 and key not in OTHERS and not key.lower().startswith(NEVER):
            yield from _walk(value, (*path, key), depth - 1)


def _as_tensor(value: Any) -> torch.Tensor | None:
    """Return a tensor, also NumPy's; None for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.dtype.isnative:
        return torch.from_numpy(np.array(value))
    return None


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _rank(one: StateDict, most: int) -> tuple[bool, bool, int]:
    """Smaller for what is rather taken; a stray tensor or two make no state dict."""
    name = one.path.rpartition(".")[2]
    known = NAMES.index(name) if name in NAMES else len(NAMES)
    return 2 * len(one.tensors) < most, one.is_average, known


def choose(path: Path, found: Sequence[StateDict], key: str | None) -> list[StateDict]:
    """Return what a user asked for, or all that there are.

    Args:
        path: of the file, for messages.
        found: in it.
        key: path of one, or further into one: ``teacher.backbone`` are the weights whose names
            begin with ``backbone.`` in ``teacher``.

    Raises:
        VitqError: none of that name, or none at all.
    """
    if not found:
        raise VitqError(
            f"weights {path} hold no state dict, at no level: give a file that "
            "torch.save(model.state_dict(), FILE) wrote"
        )
    if key is None:
        return list(found)
    for one in sorted(found, key=lambda one: -len(one.path)):
        if key == one.path:
            return [one]
        prefix = f"{key}.".removeprefix(f"{one.path}." if one.path else "")
        inside = not one.path or key.startswith(f"{one.path}.")
        part = {k[len(prefix) :]: v for k, v in one.tensors.items() if k.startswith(prefix)}
        if inside and part:
            return [StateDict(key, part, ())]
    names = [one.path for one in found if one.path]
    listed = ", ".join(names[:LISTED]) or "only its own tensors: leave --weights-key out"
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]}? It has" if near else "it has"
    raise VitqError(f"weights {path} have no state dict {key!r}: {hint} {listed}")
