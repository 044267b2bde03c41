"""Which pictures of a source are taken: some of every class, or evenly spaced over the list.

Seed 0 is not at random: of an unlabelled list it takes every k-th (the first ones may be all of one
kind), of class folders some of each, and of a table the first ones if they miss no class.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from vitq.numerics.errors import VitqError


def drawn(available: int, limit: int | None, seed: int, source: str) -> list[int]:
    """Which pictures are taken, whatever their classes.

    Args:
        available: how many there are.
        limit: how many are wanted, None for all.
        seed: 0 takes number ``i * available // limit`` for each i, another one draws some of all.
        source: for the message.

    Returns:
        Indices.

    Raises:
        VitqError: if there is nothing to draw from.
    """
    if seed == 0:
        wanted = available if limit is None else min(limit, available)
        return [index * available // wanted for index in range(wanted)]
    if limit is None or limit >= available:
        raise VitqError(
            f"{source} holds {available} pictures: seed {seed} has none to draw {limit or 'all'} "
            "from; give more pictures or a smaller number"
        )
    # RandomState and not default_rng: NumPy guarantees that its stream never changes.
    found: list[int] = np.random.RandomState(seed).permutation(available)[:limit].tolist()
    return found


def drawn_round(
    classes: Sequence[Hashable], limit: int | None, seed: int, source: str
) -> list[int]:
    """Which pictures are taken, going round the classes: as many of each as can be.

    Args:
        classes: of each picture.
        limit: how many are wanted, None for all.
        seed: 0 takes the first of each class, then the second of each, and so on; another one puts
            the classes and the pictures of each in a random order before.
        source: for the message.

    Returns:
        Indices; all of them, or of one class, as `drawn` gives them.

    Raises:
        VitqError: if there is nothing to draw from.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, name in enumerate(classes):
        groups.setdefault(name, []).append(index)
    if limit is None or limit >= len(classes) or len(groups) == 1:
        return drawn(len(classes), limit, seed, source)
    piles = list(groups.values())
    if seed != 0:
        random = np.random.RandomState(seed)
        piles = [piles[i] for i in random.permutation(len(piles))]
        piles = [[pile[i] for i in random.permutation(len(pile))] for pile in piles]
    turns = range(max(map(len, piles)))
    return [pile[turn] for turn in turns for pile in piles if turn < len(pile)][:limit]


def drawn_in_order(
    classes: Sequence[Hashable], limit: int | None, seed: int, source: str
) -> list[int]:
    """Which pictures are taken of a list that its owner put in order.

    Args:
        classes: of each picture.
        limit: how many are wanted, None for all.
        seed: 0 takes the first ones, if others would not be of more classes.
        source: for the message.

    Returns:
        Indices; else as `drawn_round` gives them.

    Raises:
        VitqError: if there is nothing to draw from.
    """
    in_order = list(range(len(classes)))[:limit]
    first = in_order if seed == 0 else drawn(len(classes), limit, seed, source)
    if not misses_classes(classes, first):
        return first
    return drawn_round(classes, limit, seed, source)


def misses_classes(classes: Sequence[Hashable], chosen: Sequence[int]) -> bool:
    """Whether as many pictures could be of more classes than the chosen ones are."""
    return len({classes[i] for i in chosen}) < min(len(chosen), len(set(classes)))
