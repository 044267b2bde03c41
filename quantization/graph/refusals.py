"""What a model uses that the graph cannot express, with the place and what could be done."""

from vitq.numerics.errors import VitqError

REMEDIES = {
    "conv_transpose2d": "a transposed convolution needs groups of 1",
    "batch_norm": "fold the batch norm into the layer before it",
    "grid_sample": "deformable parts cannot be integer here: quantize the backbone alone",
    "dropout": "call eval()",
    "a weight computed": "weights must not depend on the picture",
    "std in this form": "write sqrt(var + eps): an eps behind the root is another function",
    "rand": "a model must not draw random numbers",
}
"""Beginning of a refusal -> advice."""


class Refusals:
    """Operators that were refused, counted, each with the first module that holds it."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, module: str) -> None:
        """Note one."""
        count, first = self._found.get(what, (0, module))
        self._found[what] = (count + 1, first)

    def check(self) -> None:
        """Raise if there are any.

        Raises:
            VitqError: names all of them.
        """
        if not self._found:
            return
        listed = ", ".join(
            f"{what} (x{count}{_place(count, module)})"
            for what, (count, module) in sorted(self._found.items())
        )
        advice = sorted({
            REMEDIES[start] for what in self._found for start in REMEDIES if what.startswith(start)
        })  # fmt: skip
        hints = f"; {'; '.join(advice)}" if advice else ""
        raise VitqError(f"the model uses operators that are not supported: {listed}{hints}")


def _place(count: int, module: str) -> str:
    if not module:
        return ""
    return f", first in {module}" if count > 1 else f", in {module}"
