"""From a float model to a verified integer-only library: python examples/quickstart.py."""

import vitq
from vitq.models.digits_vit.data import eval_images


def main() -> None:
    """Quantize, compile, run, verify, evaluate and save the embedded model."""
    q = vitq.quantize("digits_vit", recipe="w8a8", method="repq")
    lib = vitq.compile(q, target="cpu", batch=8)

    pixels, labels = eval_images(100)  # uint8 (100, 3, 32, 32)
    logits = lib(pixels)  # float32 (100, 10)
    print(f"{(logits.argmax(1) == labels).sum()} of {len(labels)} digits are right")

    codes, scale, zero_point = lib.run(pixels, raw=True)
    print(f"logits are {codes.dtype} in steps of {scale:.2g} around {zero_point}")

    checks = lib.verify(pixels)
    print(f"{sum(check.values for check in checks)} integers are those of the reference")
    for name, row in lib.evaluate(pixels, labels).items():
        print(f"{name}: {row.top1} of {row.images}")

    folder = lib.save("out")
    assert (vitq.load(folder)(pixels) == logits).all()
    print(f"saved to {folder}: vitq verify {folder}")


if __name__ == "__main__":
    main()
