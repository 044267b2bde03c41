"""Make the static bundle, and a picture as raw bytes: python bundle.py."""

from pathlib import Path

import vitq
from vitq.models.digits_vit.data import eval_images


def main() -> None:
    """Write ``bundle/`` and ``digit.raw`` to the current folder."""
    lib = vitq.compile(vitq.quantize("digits_vit"), batch=1)
    bundle = vitq.deploy(lib, "bundle", flavour="static")
    pixels, labels = eval_images(1)
    Path("digit.raw").write_bytes(pixels[0].tobytes())
    print(f"{bundle.folder}: {bundle.size_bytes / 1e6:.2f} MB; digit.raw is a {labels[0]}")


if __name__ == "__main__":
    main()
