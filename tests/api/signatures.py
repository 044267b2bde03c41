"""The public names of ``vitq`` and their signatures, one a line.

python -m tests.api.signatures > tests/api/signatures.txt
"""

import inspect
import re
from collections.abc import Iterator

import vitq


def signatures() -> Iterator[str]:
    """Every public function, class, method and attribute, in alphabetical order."""
    for name in vitq.__all__:
        thing = getattr(vitq, name)
        if not inspect.isclass(thing):
            yield f"vitq.{name}{signature_of(thing)}"
            continue
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        yield f"class vitq.{name}" + (f"({bases})" if bases else "")
        if not issubclass(thing, Exception):
            yield from _members(f"vitq.{name}", thing)


def _members(path: str, thing: type) -> Iterator[str]:
    for name, member in sorted(vars(thing).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if inspect.isfunction(member):
            yield f"{path}.{name}{signature_of(member)}"
    attributes = (thing.__doc__ or "").partition("Attributes:")[2].split("\n")
    attributes = [line.strip() for line in attributes]
    for line in attributes:
        name, colon, _ = line.partition(":")
        if colon and name.isidentifier():
            yield f"{path}.{name}"


def signature_of(function: object) -> str:
    """As it is written, on any version of Python."""
    found = inspect.signature(function)  # type: ignore[arg-type]
    parts, marked = [], False
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not marked:
            parts.append("*")
            marked = True
        text = parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        parts.append(text)
    return f"({', '.join(parts)}) -> {_annotation(found.return_annotation)}"


def _annotation(annotation: object) -> str:
    """Without the modules of names, which depend on how it was written."""
    text = annotation.__name__ if type(annotation) is type else str(annotation)
    return re.sub(r"\b[a-z_.]+\.(?=[A-Z])", "", text)


if __name__ == "__main__":
    print("\n".join(signatures()))
