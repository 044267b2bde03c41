"""Import timm and torchvision also where torch and torchvision come from different builds."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_STUBS: "list[torch.library.Library]" = []
MISSING = "torchvision::nms"


def import_timm() -> ModuleType:
    """Import timm."""
    return with_repair(lambda: importlib.import_module("timm"))


def with_repair(work: Callable[[], T]) -> T:
    """Do what imports timm or torchvision, directly or not; a user's own code, too.

    A CPU-only torch beside a CUDA build of torchvision lacks ``torchvision::nms``, which
    torchvision's import then describes in vain (RuntimeError). The schemas are declared only where
    the import fails, and the work is done again. It can go when torchvision registers its fakes
    only for operators that exist (`tests/models/test_timm_compat.py` says so).

    Args:
        work: may be done twice.

    Returns:
        Its result.
    """
    try:
        return work()
    except RuntimeError as error:
        if _STUBS or MISSING not in str(error):
            raise
    _declare()
    return work()


def repaired() -> bool:
    """Whether what was missing is declared."""
    return bool(_STUBS)


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _STUBS.append(library)  # a Library that is collected takes its schemas with it
