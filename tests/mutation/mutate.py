"""Small wrong changes of a module, one at a time: what its tests must notice."""

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
RENAMED = {
    "all": "any",
    "any": "all",
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "rint": "floor",
    "floor": "ceil",
    "abs": "negative",
}
Change = Callable[[ast.AST], ast.AST | None]


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        file: of the module, from the repository's root.
        where: the function, class or ``module`` that it is in.
        before: text of what is changed.
        after: text of what it becomes; empty where it is deleted.
        number: tells equal changes of one function apart, from 0.
    """

    file: str
    where: str
    before: str
    after: str
    number: int = 0

    def __str__(self) -> str:
        """One line."""
        after = self.after or "(deleted)"
        return f"{self.file} {self.where}: {self.before} -> {after} [{self.number}]"


def mutants(file: str, source: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """All mutants of a module, each with its tree.

    Args:
        file: its path, which mutants are named by.
        source: its text.
    """
    tree = ast.parse(source)
    seen: Counter[tuple[str, str, str]] = Counter()
    for path, where in _places(tree, (), "module"):
        for before, after, change in _changes(_at(tree, path)):
            key = where, before, after
            number = seen[key]
            seen[key] += 1
            changed = copy.deepcopy(tree)
            _replace(changed, path, change)
            yield Mutant(file, where, before, after, number), ast.fix_missing_locations(changed)


def _places(node: ast.AST, path: tuple, where: str) -> Iterator[tuple[tuple, str]]:  # type: ignore[type-arg]
    """Paths to all nodes that may change, and the function that each is in."""
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        where = node.name if where == "module" else f"{where}.{node.name}"
    if path:
        yield path, where
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                at = (name, index) if isinstance(value, list) else (name, None)
                yield from _places(child, (*path, at), where)


def _at(tree: ast.AST, path: tuple) -> ast.AST:  # type: ignore[type-arg]
    node = tree
    for name, index in path:
        value = getattr(node, name)
        node = value if index is None else value[index]
    return node


def _replace(tree: ast.AST, path: tuple, change: Change) -> None:  # type: ignore[type-arg]
    """Change the node at a path in place."""
    parent, (name, index) = _at(tree, path[:-1]), path[-1]
    changed = change(_at(tree, path))
    if index is None:
        setattr(parent, name, changed)
    elif changed is None and isinstance(parent, (ast.List, ast.Tuple)):
        del getattr(parent, name)[index]
    else:
        getattr(parent, name)[index] = changed or ast.Pass()


def _changes(node: ast.AST) -> Iterator[tuple[str, str, Change]]:
    """(before, after, change) of one node."""
    before = "" if isinstance(node, (ast.operator, ast.cmpop, ast.boolop)) else _text(node)
    for change in [*_of_expression(node), *_of_statement(node)]:
        after = change(copy.deepcopy(node))
        yield before, _text(after) if after is not None else "", change
    if isinstance(node, (ast.List, ast.Tuple)) and isinstance(node.ctx, ast.Load):
        for index in range(len(node.elts) if len(node.elts) > 1 else 0):
            shorter = _without(index)
            yield before, _text(shorter(copy.deepcopy(node))), shorter


def _text(node: ast.AST) -> str:
    lines = ast.unparse(node).splitlines()
    return lines[0] if lines else ""


def _without(index: int) -> Callable[[ast.AST], ast.AST]:
    def change(node: ast.AST) -> ast.AST:
        del node.elts[index]  # type: ignore[attr-defined]
        return node

    return change


def _set(name: str, value: object) -> Callable[[ast.AST], ast.AST]:
    def change(node: ast.AST) -> ast.AST:
        setattr(node, name, value)
        return node

    return change


def _of_expression(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            if type(op) in COMPARED:
                ops = [*node.ops]
                ops[index] = COMPARED[type(op)]()
                yield _set("ops", ops)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in COMPUTED:
        yield _set("op", COMPUTED[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield _set("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield lambda found: found.operand  # type: ignore[attr-defined,no-any-return]
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield _set("value", not node.value)
        elif isinstance(node.value, (int, float)):
            yield _set("value", node.value + 1)
            yield _set("value", node.value - 1)
    elif isinstance(node, ast.Call):
        name = "attr" if isinstance(node.func, ast.Attribute) else "id"
        called = getattr(node.func, name, "")
        if called in RENAMED:

            def rename(found: ast.AST, called: str = called, name: str = name) -> ast.AST:
                setattr(found.func, name, RENAMED[called])  # type: ignore[attr-defined]
                return found

            yield rename
    elif isinstance(node, ast.IfExp):
        yield lambda found: found.body  # type: ignore[attr-defined,no-any-return]
        yield lambda found: found.orelse  # type: ignore[attr-defined,no-any-return]


def _of_statement(node: ast.AST) -> Iterator[Change]:
    """Statements that can be missed without a name that is not defined."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.If)) and not is_text:
        yield lambda found: None
