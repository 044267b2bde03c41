"""Progress bars on stderr, for people: none where nobody looks."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")
Batch = TypeVar("Batch", bound=Sized)


def progress_bar(
    items: Iterable[Item], title: str, total: int, unit: str = "batch"
) -> Iterable[Item]:
    """Return the same items, with a bar that goes away when they are used up."""
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(items, desc=title, total=total, unit=unit, leave=False, disable=None)
    return bar


def counted_bar(batches: Iterable[Batch], title: str, total: int, unit: str) -> Iterator[Batch]:
    """Yield the same batches, with a bar that counts what is in them, and how many a second."""
    from tqdm import tqdm

    with tqdm(desc=title, total=total, unit=unit, leave=False, disable=None) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
