"""Accuracy of methods and widths beside the float model: python examples/compare_methods.py."""

import vitq
from vitq.models.digits_vit.data import eval_images


def main() -> None:
    """Quantize the embedded model in four ways, and evaluate the simulated quantizers."""
    pixels, labels = eval_images(100)
    found = vitq.compare_methods(
        "digits_vit",
        recipes=["w8a8", "w4a8"],
        methods=["minmax", "repq"],
        pixels=pixels,
        labels=labels,
    )
    print(f"float: {found.float_row.top1} of {found.float_row.images}")
    for cell in found.cells:
        if cell.row is None:
            print(f"{cell.recipe} {cell.method}: refused, {cell.refused}")
        else:
            print(f"{cell.recipe} {cell.method}: {cell.row.top1}, {cell.row.sqnr_db:.1f} dB")


if __name__ == "__main__":
    main()
