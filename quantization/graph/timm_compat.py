"""Import timm also where torch and torchvision come from different builds."""

import importlib
from types import ModuleType

import torch

_STUBS: list[torch.library.Library] = []


def import_timm() -> ModuleType:
    """Import timm.

    A CPU-only torch beside a CUDA build of torchvision lacks ``torchvision::nms``, which
    torchvision's import then describes in vain (RuntimeError). The schemas are declared only where
    the import fails. It can go when torchvision registers its fakes only for operators that exist
    (`tests/quantization/test_timm_compat.py` says so).
    """
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _STUBS.append(library)  # a Library that is collected takes its schemas with it
    return importlib.import_module("timm")
