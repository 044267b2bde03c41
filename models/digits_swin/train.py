"""Train the digits Swin on one CPU core and write its checkpoint.

Usage: `python -m vitq.models.digits_swin.train --output digits_swin.safetensors --seed 0 --epochs
    80`.

Data, augmentation and recipe are those of `models.digits_vit.train`.
"""

from __future__ import annotations

from vitq.models.digits_swin import CHECKPOINT, digits_swin
from vitq.models.digits_vit.train import train_and_save


def main(argv: list[str] | None = None) -> None:
    """Train the digits Swin."""
    train_and_save(digits_swin, CHECKPOINT, "digits Swin", argv)


if __name__ == "__main__":
    main()
