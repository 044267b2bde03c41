"""Models of a name at another picture size, with random weights, as ``package.module:factory``.

``compiler.benchmark.sized:deit_tiny_patch16_224_at_384`` is deit_tiny_patch16_224 for pictures of
384 x 384. The module makes such factories when they are asked for.
"""

from collections.abc import Callable
from typing import Any

from vitq.compiler.support.embedded import EMBEDDED_MODEL
from vitq.numerics.errors import VitqError

SEPARATOR = "_at_"
HALF = (0.5, 0.5, 0.5)


def sized_name(model: str, size: int) -> str:
    """Return the name under which a model at a picture size can be quantized.

    Raises:
        VitqError: for a model that is no timm name and not the embedded one.
    """
    base = model.removeprefix(f"{__name__}:").split(SEPARATOR)[0]
    if ":" in base:
        raise VitqError(f"{model}: only timm's models and {EMBEDDED_MODEL} have picture sizes")
    return f"{__name__}:{base}{SEPARATOR}{size}"


def __getattr__(name: str) -> Callable[[], Any]:
    base, separator, size = name.rpartition(SEPARATOR)
    if not (separator and size.isdigit()):
        raise AttributeError(name)
    return lambda: _build(base, int(size))


def _build(base: str, size: int) -> Any:
    """Return the ``torch.nn.Module``, which says what its input is."""
    try:
        if base == EMBEDDED_MODEL:
            from vitq.models.digits_vit import NUM_CLASSES
            from vitq.models.digits_vit.model import DigitsViT

            model: Any = DigitsViT(image_size=size, num_classes=NUM_CLASSES)
        else:
            from vitq.models.timm_compat import import_timm

            model = import_timm().create_model(base, pretrained=False, img_size=size)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise VitqError(f"{base} does not take pictures of {size} x {size}: {error}") from error
    config = {"input_size": (3, size, size), "mean": HALF, "std": HALF}
    model.pretrained_cfg = model.default_cfg = config
    return model
