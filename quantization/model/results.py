"""What a model returns, and which of it becomes the network's results.

Every stage works with tensors by name (`quantization.graph.results`). The model itself is not
wrapped, so that the names of its weights stay: hooks on a call change what it returns.

    the model returns                 taken
    a tensor, or one in any packing   that tensor
    several                           all that are tensors themselves; what lies deeper beside them
                                      (``hidden_states``, ``attentions``) is left out, and said

`with_features` takes others instead, by name: results of inner modules (``blocks.3``, ``norm``),
as ``forward_intermediates`` of timm or a detection backbone gives them, and the model's own.
Modules that only made what is not taken any more are not part of the network.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from vitq.numerics.errors import VitqError, nearest
from vitq.quantization.graph.outputs import FEATURES, LOGITS
from vitq.quantization.graph.results import KEEPS_NAMES, LEFT, members, named_tensors, tensors_of

LISTED = 8
_HOOKED = "_vitq_returns_tensors"
Tensors = dict[str, torch.Tensor]


def return_tensors(module: torch.nn.Module) -> torch.nn.Module:
    """Let a model return the tensors that are taken, whatever it packs them in.

    Args:
        module: changed in place; twice is as once.

    Returns:
        The same module.
    """
    if not getattr(module, _HOOKED, False):
        module.register_forward_hook(_unpack)
        setattr(module, _HOOKED, True)
    return module


def _unpack(module: torch.nn.Module, args: Any, result: Any) -> torch.Tensor | Tensors:
    name = type(module).__name__
    found = taken_tensors(result, name)
    left = [key for key, _ in tensors_of(result, torch.Tensor) if key not in found]
    setattr(module, LEFT, _listed(left))
    return _packed(found)


def _packed(found: Tensors) -> torch.Tensor | Tensors:
    """Return a model's only tensor as it is."""
    return found if len(found) > 1 else next(iter(found.values()))


def taken_tensors(result: Any, name: str = "the model") -> Tensors:
    """Find the tensors in a result that are taken.

    Args:
        result: of a model.
        name: what the model is called in the message.

    Returns:
        Name -> tensor; the name of a bare tensor is empty.

    Raises:
        VitqError: no tensor in it, or two of one name.
    """
    found = named_tensors(result, torch.Tensor)
    if not found:
        kind = type(result).__name__
        raise VitqError(
            f"{name} returns {kind} without a tensor: return the logits (N, classes) or features"
        )
    own = {str(key) for key, value in members(result) if isinstance(value, torch.Tensor)}
    return {key: value for key, value in found.items() if key in own} or found


def with_features(module: torch.nn.Module, names: Sequence[str]) -> torch.nn.Module:
    """Take results of inner modules, or some of the model's own.

    Args:
        module: from `return_tensors`; not changed.
        names: of modules, or of the model's own results (``logits`` or ``features`` for
            its only one).

    Returns:
        A model of the same weights that returns these, in this order.

    Raises:
        VitqError: a name that is unknown; later, a module that is not called.
    """
    if not names:
        return module
    clone = copy.copy(module)
    picked = _Picked(names, dict(module.named_modules()), type(module).__name__)
    clone._forward_hooks = OrderedDict(module._forward_hooks)
    clone._forward_pre_hooks = OrderedDict(module._forward_pre_hooks)
    setattr(clone, KEEPS_NAMES, True)
    clone.register_forward_pre_hook(picked.watch)
    clone.register_forward_hook(picked.collect)
    return clone


class _Picked:
    """Hooks that keep the results of some modules during one call.

    Args:
        names: that are asked for.
        modules: of the model, by name.
        model: what the model is called.
    """

    def __init__(
        self, names: Sequence[str], modules: dict[str, torch.nn.Module], model: str
    ) -> None:
        self._names, self._modules, self._model = names, modules, model
        self._found: dict[str, Any] = {}
        self._handles: list[Any] = []

    def watch(self, module: torch.nn.Module, args: Any) -> None:
        """Begin a call."""
        self._end()
        for name in self._names:
            if name in self._modules and name:
                hook = self._keep(name)
                self._handles.append(self._modules[name].register_forward_hook(hook))

    def _keep(self, name: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, result: Any) -> None:
            self._found[name] = result

        return hook

    def collect(self, module: torch.nn.Module, args: Any, result: Any) -> torch.Tensor | Tensors:
        """End a call: return what was asked for."""
        own = taken_tensors(result, self._model)
        own |= dict.fromkeys((LOGITS, FEATURES), *own.values()) if len(own) == 1 else {}
        chosen: Tensors = {}
        for name in self._names:
            kept = self._found.get(name, own.get(name))
            if kept is None:
                raise self._unknown(name, own)
            parts = dict(tensors_of(kept, torch.Tensor))
            chosen |= {f"{name}.{key}" if len(parts) > 1 else name: parts[key] for key in parts}
        self._end()
        return chosen

    def _unknown(self, name: str, own: Tensors) -> VitqError:
        if name in self._modules:
            return VitqError(
                f"{self._model}: the module {name} is not called, or returns nothing: choose "
                "another one for --output-features"
            )
        known = [key for key in (*own, *self._modules) if key]
        return VitqError(
            f"{self._model} has no module and no result {name!r}{nearest(name, known)}: "
            f"--output-features takes module names ({_listed(list(self._modules)[1:])}) and the "
            f"model's own results ({', '.join(key for key in own if key)})"
        )

    def _end(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._found.clear()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
