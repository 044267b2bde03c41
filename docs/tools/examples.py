"""Let `mkdocstrings` read the section ``Example:`` of a docstring as code."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Give the section the name that the parser of Google's style knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename it in an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub("Examples:", obj.docstring.value)
