"""FoldCodeTable: a table of attention weights becomes the two ranges that it holds."""

from vitq.numerics.shiftmax import CodeParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.code_table import read_code_table, twin_of_table
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class FoldCodeTable(BindingPass):
    """Folds a look-up of Shiftmax codes (twin ranges, `numerics.twin_codes`) into the codes.

    Before -> after::

        take(table, vitq.shiftmax_codes(x))  ->  vitq.shiftmax_codes(x, twin ranges)

    where table[w] is what a weight w becomes; `code_table.read_code_table` says how the index is
    written. Exact. Refuses a table of anything else, and codes that are not uniform before.
    """

    requires = (Property.SOFTMAX_LOWERED,)
    ensures = (Property.CODE_TABLES_FOLDED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        found = read_code_table(value, ctx)
        codes = None if found is None else ctx.call(found.codes, names.SHIFTMAX_CODES)
        if found is None or codes is None:
            return None
        p = CodeParams(*dialect.scalars(codes))
        if p.zero_last or p.coarse:
            raise DeclineError("a table of weights that are not uniform")
        twin = twin_of_table(found.table)
        params = p._replace(fine=twin.fine, coarse=twin.coarse)
        return dialect.shiftmax_codes(dialect.operands(codes)[0], params)
