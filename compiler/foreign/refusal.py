"""The line of a refusal: counts for each operator, then causes with their remedies.

At most `LONGEST` characters; ``vitq -v`` shows every operator by its name in the file.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vitq.compiler.foreign.facts import LAYOUT, Facts
from vitq.compiler.foreign.remedies import Found, causes_of
from vitq.numerics.errors import VitqError, plain

logger = logging.getLogger(__name__)

LONGEST = 600
KINDS = 6
CAUSES = 3
REASONS = 2
LONGEST_NAME = 60
ALL_OF_THEM = " | all of them: vitq -v"
GENERAL = "quantize all operators, or the PyTorch model (vitq quantize)"


class Left(NamedTuple):
    """An operator that did not become an integer one.

    Attributes:
        node: its name in the file.
        op: of ONNX.
        reason: why, as a pass said it; empty where none did.
    """

    node: str
    op: str
    reason: str = ""


def refusal(
    path: object, what: str, left: Sequence[Left], facts: Facts, remedy: str = GENERAL
) -> VitqError:
    """Compose an error that says what, where, why and what to do.

    Args:
        path: the user's own file.
        what: is wrong; the operators' counts follow.
        left: the operators.
        facts: of the file.
        remedy: where no cause is known.

    Returns:
        To raise; all operators are listed at DEBUG.
    """
    for one in left:
        logger.debug("%s: %s (%s): %s", path, one.node, one.op, one.reason or "stays float")
    computing = [one.op for one in left if one.op not in LAYOUT] or [one.op for one in left]
    parts = [f"{path}: {what}{counted(computing)}"]
    end = ALL_OF_THEM if len(left) > 1 else ""
    causes = causes_of(facts)
    parts += [_because(found) for found in causes[:CAUSES]]
    if not causes:
        parts += _reasons(left) or [f"({named([one.node for one in left])})" for _ in left[:1]]
        parts.append(remedy)
    elif not causes[0].cause.alone:
        parts += _reasons(left)
    return VitqError(_joined(parts, LONGEST - len(end)) + end)


def counted(ops: Iterable[str]) -> str:
    """Return ``Gelu (x40), Conv (x1)``, the most frequent first."""
    counts = Counter(ops).most_common()
    shown = ", ".join(f"{op} (x{count})" for op, count in counts[:KINDS])
    more = len(counts) - KINDS
    return shown if more <= 0 else f"{shown} and {more} more kinds"


def named(names: Sequence[str]) -> str:
    """Return how often, and where first."""
    first = plain(names[0])
    first = first if len(first) <= LONGEST_NAME else f"{first[:LONGEST_NAME]}..."
    return f"at {first}" if len(names) == 1 else f"x{len(names)}, first at {first}"


def _because(found: Found) -> str:
    where = f" ({named(found.nodes)})" if any(found.nodes) else ""
    return f"{found.cause.says}{where}: {found.cause.remedy}"


def _reasons(left: Sequence[Left]) -> list[str]:
    """Return what the passes said, each text once."""
    where: dict[str, list[str]] = {}
    for one in left:
        if one.reason:
            where.setdefault(one.reason, []).append(one.node)
    ordered = sorted(where.items(), key=lambda item: -len(item[1]))
    return [f"{reason} ({named(nodes)})" for reason, nodes in ordered[:REASONS]]


def _joined(parts: list[str], longest: int) -> str:
    """One line that is not too long: later parts go first."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + len(part) + 3 <= longest or line == parts[0]:
            line += f" | {part}"
    return line
