"""What all lanes of TIR have in common."""

from tvm import tirx

from vitq.compiler.kernels.forms.lanes import Expr, Lanes


class TirLanes(Lanes):
    """Lanes whose values are TIR expressions.

    Attributes:
        dtype: of one lane.
    """

    dtype: str

    def one_if(self, condition: Expr) -> Expr:
        """Cast a condition to the lanes' type."""
        return condition.astype(self.dtype)

    def select(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        """TIR's Select: no branch."""
        return tirx.Select(condition, yes, no)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """TIR's Min."""
        return tirx.min(a, b)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """TIR's Max."""
        return tirx.max(a, b)
