"""How pictures become the input of a QDQ file: as it says, or as is said of a foreign one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.described import Described, resolve
from vitq.quantization.pictures.preprocessing import Preprocessing

if TYPE_CHECKING:
    from vitq.compiler.codegen.importing import ImportedModel

KEY = "vitq.preprocessing"
"""Of the ONNX file's metadata."""


def input_of_file(
    model: "ImportedModel", said: Described, path: Path, is_foreign: bool
) -> Preprocessing:
    """Return what a file's input means.

    Args:
        model: the file, imported.
        said: of a foreign file; its mean and std are `model.meaning`'s, its size the file's.
        path: of the file.
        is_foreign: whether it was quantized elsewhere.

    Returns:
        The whole; of a foreign file that nobody describes, as is usual (listed as assumed).

    Raises:
        VitqError: one of ours from an earlier version, or options for a file that needs none.
    """
    stored = model.properties.get(KEY)
    if stored is not None:
        if said != Described():
            raise VitqError(
                f"{path} says itself how pictures become its input: leave --preprocessor, "
                "--crop-fraction, --resize, --interpolation and --color out, or quantize with them"
            )
        try:
            return Preprocessing.from_json(json.loads(stored), path)
        except (ValueError, RecursionError) as error:
            raise VitqError(f"{path}: its metadata {KEY} is no JSON: {error}") from error
    if not is_foreign:
        raise VitqError(
            f"{path} was exported by an earlier version, which did not keep how pictures become "
            "its input: quantize and export again"
        )
    _, channels, height, width = model.shape
    meaning = model.meaning
    known = Described(
        size=(height, width),
        channels=channels,
        mean=meaning.mean or (0.0,),
        std=meaning.std or (1.0,),
    )
    return resolve(known.over(replace(said, mean=None, std=None)), str(path))
