"""What a model uses that the graph cannot express, with the place and what could be done."""

from vitq.numerics.errors import VitqError

_APART = "the pictures of a batch must not meet: reshape to (x.shape[0], ...), leave axis 0 alone"
_READS = "what is read must not depend on the picture"
REMEDIES = {
    "conv_transpose2d": "a transposed convolution needs groups of 1",
    "batch_norm": "fold the batch norm into the layer before it",
    "grid_sample": "deformable parts cannot be integer here: quantize the backbone alone",
    "dropout": "call eval()",
    "a weight computed": "weights must not depend on the picture",
    "std in this form": "write sqrt(var + eps): an eps behind the root is another function",
    "rand": "a model must not draw random numbers",
    "pad with": "pad with a finite number: -inf is known before max_pool2d alone",
    "reshape that mixes": _APART,
    "an operator along the pictures": _APART,
    "an operator that mixes": _APART,
    "index that depends": _READS,
    "argsort": _READS,
    "gather": _READS,
    "topk": _READS,
}
"""Beginning of a refusal -> advice."""
OTHERWISE = (
    "let --output-features name the modules before it as results, or replace it in a factory of "
    "your own (package.module:factory)"
)
"""Where there is no better advice."""


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
        advice = {_remedy(what) for what in self._found}
        hints = "; ".join([*sorted(advice - {OTHERWISE}), *(advice & {OTHERWISE})])
        raise VitqError(f"the model uses operators that are not supported: {listed}; {hints}")


def _remedy(what: str) -> str:
    """Return the advice for a refusal."""
    return next((REMEDIES[start] for start in REMEDIES if what.startswith(start)), OTHERWISE)


def _place(count: int, module: str) -> str:
    if not module:
        return ""
    return f", first in {module}" if count > 1 else f", in {module}"
