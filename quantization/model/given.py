"""Models in hand: from Python, without a name that could be looked up or a file."""

import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitq.numerics.errors import VitqError, reason

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A snapshot of a float model: what its owner does to it later changes nothing here.

    Attributes:
        module: in eval mode, float32, on the processor; nobody else's.
    """

    module: "torch.nn.Module"

    @classmethod
    def of(cls, module: "torch.nn.Module") -> "GivenModel":
        """Copy a module, which stays as it is.

        Raises:
            VitqError: if it cannot be copied.
        """
        empty = [key for key, value in module.state_dict().items() if value.is_meta]
        if empty:
            raise VitqError(f"the model's {empty[0]} has no values (device meta): load its weights")
        try:
            taken = copy.deepcopy(module)
        except (RuntimeError, TypeError) as error:
            name, said = type(module).__name__, reason(error)
            raise VitqError(f"the {name} cannot be copied (detach its tensors?): {said}") from error
        return cls(taken.eval().cpu().float())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its structure and of its state dict."""
        from vitq.quantization.graph.identity import module_hash

        return module_hash(self.module)
