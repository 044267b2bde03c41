"""Stage ``where``: the folder of an artifact, or of a library in it, made or not."""

from pathlib import Path

from vitq.compiler.stages.compile import CompileOptions
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import Artifact
from vitq.numerics.errors import VitqError
from vitq.quantization.mixed.budget import Budget


def where(
    options: QuantizeOptions,
    library: CompileOptions | None = None,
    budget: Budget | None = None,
) -> Path:
    """Tell where the stages write.

    Args:
        options: of the quantized model.
        library: of a library in it; None for the artifact.
        budget: of a mixed recipe, which need not be measured for that; None for a recipe with a
            name, which is that of `options`.

    Returns:
        The folder.
    """
    artifact = options.artifact if budget is None else mixed_artifact(options, budget)
    if library is None:
        return artifact.folder
    return artifact.target_folder(library.target.name, library.batch, library.tuned)


def mixed_artifact(options: QuantizeOptions, budget: Budget) -> Artifact:
    """Where the quantized model goes whose recipe is made for a budget.

    Raises:
        VitqError: there is a bound besides.
    """
    if options.max_drop is not None:
        raise VitqError(
            "--max-drop widens what recipe mixed narrows to a budget: give one of them, or "
            "--max-drop with the recipe's file that mixed wrote"
        )
    return options.artifact_of(budget.label)
