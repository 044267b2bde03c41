"""Progress bars on stderr, for people: none where nobody looks."""

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item], title: str, total: int, unit: str = "batch"
) -> Iterable[Item]:
    """Return the same items, with a bar that goes away when they are used up."""
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(items, desc=title, total=total, unit=unit, leave=False, disable=None)
    return bar
