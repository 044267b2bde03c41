"""Weights that are chance instead of learned: noticed before a model of them is quantized.

    factory(), called again with other random numbers   ->  parameters that are others are random
    every norm's weight 1 and bias 0, exactly           ->  nothing has trained the model

The first finds what a factory forgot to load, a new head included; the second also what a factory
that seeds the generator itself, or a module in hand, hides from the first.
"""

import logging
from collections.abc import Sequence

import torch

from vitq.numerics.errors import VitqError
from vitq.quantization.model.building import build

logger = logging.getLogger(__name__)

OTHER_SEED = 20_240_229
MOST = 0.5
"""Share of a model's numbers above which it is a random model, and no model with a random part."""
NAMED = 3


def check_learned(name: str, module: torch.nn.Module, is_made_again: bool) -> None:
    """Refuse or name weights that nothing has trained.

    Args:
        name: of the model.
        module: as it was built.
        is_made_again: whether `name` is a factory without a file of weights: it is called again.

    Raises:
        VitqError: most of the factory's weights are others at each call.
    """
    found = random_parameters(name, module) if is_made_again else []
    if found:
        _say_random(name, module, found)
        return
    norms = [m for m in module.modules() if "Norm" in type(m).__name__ and _parameters(m)]
    if norms and all(map(_is_untouched, norms)):
        logger.warning(
            "WARNING: %s: the weights of its norms (%d) are 1 and their biases 0, as before any "
            "training: were the model's weights loaded?",
            *(name, len(norms)),
        )


def random_parameters(name: str, module: torch.nn.Module) -> list[str]:
    """Return the parameters that are others when a factory is called with another seed.

    Args:
        name: ``package.module:factory``.
        module: of its first call.

    Returns:
        Their names; none where the factory cannot be called again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(OTHER_SEED)
        try:
            again = dict(build(name, {}).named_parameters())
        except VitqError as error:
            logger.debug("%s cannot be called twice: %s", name, error)
            return []
    return [
        key
        for key, value in module.named_parameters()
        if key not in again or not _is_same(value, again[key])
    ]


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers; those without values do."""
    if one.is_meta or other.is_meta:
        return True
    return torch.equal(one.detach().cpu(), other.detach().cpu())


def _say_random(name: str, module: torch.nn.Module, found: Sequence[str]) -> None:
    sizes = {key: value.numel() for key, value in module.named_parameters()}
    share = sum(sizes[key] for key in found) / sum(sizes.values())
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    which = f"{len(found)} of {len(sizes)} parameters ({', '.join(found[:NAMED])}{more})"
    if share <= MOST:
        logger.warning(
            "WARNING: %s: %s are random, others at each call: they were not loaded", name, which
        )
        return
    raise VitqError(
        f"model {name!r} has random weights: {which} are others at each call: load the trained "
        "ones in the factory, or pass --weights FILE, or --random-weights SEED for a model of the "
        "right structure without accuracy"
    )


def _parameters(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return a norm's own weight and bias, as far as it has them."""
    found = [getattr(module, key, None) for key in ("weight", "bias")]
    return [value for value in found if isinstance(value, torch.Tensor) and not value.is_meta]


def _is_untouched(norm: torch.nn.Module) -> bool:
    weight, *bias = _parameters(norm)
    return bool((weight == 1).all()) and all(not value.any() for value in bias)
