"""Twin ranges of a GELU's quantizer, as data on the node.

``attrs["twin_shift"]`` and ``attrs["twin_split"]`` (the zero point where it is absent), see
`numerics.twin`. `Node.out` has the fine step, and bounds in fine steps.
"""

from vitq.numerics.errors import VitqError
from vitq.numerics.twin import Twin, check_twin
from vitq.quantization.graph.graph import Node, OpKind
from vitq.quantization.plan.nonlinear import family_of


def twin_of(node: Node) -> Twin | None:
    """Return the two ranges of a node's quantizer, None where it has one.

    Raises:
        VitqError: for another operator than GELU, and for ranges that cannot be executed.
    """
    if "twin_shift" not in node.attrs:
        return None
    if node.op is not OpKind.GELU or not family_of(node).has_twin_gelu or node.out is None:
        raise VitqError(f"{node.name}: twin ranges are for the quantizer of a ShiftGELU")
    split = node.attrs.get("twin_split", int(node.out.zero_point))
    twin = Twin(int(split), int(node.attrs["twin_shift"]))
    check_twin(twin, node.out)
    return twin
