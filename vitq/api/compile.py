"""`compile` and `load`: from a quantized model to a library that runs, here or elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitq.api.given import described_pictures, numbers
from vitq.api.library import Library
from vitq.api.quantize import Quantized
from vitq.api.workspace import Workspace
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.export import export
from vitq.compiler.support.artifacts import Artifact, open_artifact
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.model.given import GivenModel

if TYPE_CHECKING:
    import torch

    from vitq.api.given import Preprocessor


def compile(
    model: "Quantized | str | Path",
    *,
    target: str = "cpu",
    batch: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    preprocessing: "Preprocessor | None" = None,
    nonlinear: str | None = None,
    tuned: bool = True,
    tuning_log: str | Path | None = None,
    architectures: Sequence[str] | None = None,
    debug_dump: str | Path | None = None,
) -> Library:
    """Compile a quantized model to an integer-only library.

    Args:
        model: from `quantize`; an artifact's folder (not written to); or an ONNX file of QDQ
            operators from elsewhere.
        target: see `targets`.
        batch: static batch size: pictures that one run takes. The library pads.
        mean: of each channel, for a foreign file that takes normalized floats.
        std: of each channel, likewise.
        preprocessing: how pictures become a foreign file's input, as `quantize` takes it.
        nonlinear: family of integer Softmax and GELU for a foreign file: ``vitq`` or ``ivit``.
        tuned: use the schedules of a tuning log, else every kernel's default.
        tuning_log: folder of that log; the target's shipped one if None.
        architectures: of GPUs, for target ``cuda``: ``["sm_75", "sm_90"]``.
        debug_dump: folder to write the IR after each pass to.

    Returns:
        The library, in a temporary folder.

    Raises:
        VitqError: no such model or target, unsupported operators or float operators left (all are
            listed), an accumulator that could overflow, no compiler for the target.

    Example:
        >>> lib = vitq.compile(q, target="rpi5", batch=1)
        >>> lib = vitq.compile("theirs.onnx", mean=[0.5] * 3, std=[0.5] * 3)
    """
    source, workspace, module = opened(model)
    options = CompileOptions(
        target=get_target(target, None if architectures is None else tuple(architectures)),
        batch=batch,
        mean=numbers(mean),
        std=numbers(std),
        pictures=described_pictures(preprocessing),
        nonlinear=None if nonlinear is None else Nonlinear.parse(nonlinear),
        debug_dump=None if debug_dump is None else Path(debug_dump),
        artifacts=workspace.folder,
        tuned=tuned,
        tuning_log=None if tuning_log is None else Path(tuning_log),
    )
    return Library(compile_model(source, options), workspace, module)


def load(folder: str | Path, *, model: "torch.nn.Module | None" = None) -> Library:
    """Open a library that was saved, or that ``vitq compile`` made.

    Args:
        folder: of the target, or of an artifact with one target; not written to.
        model: the float model, which `Library.evaluate` compares with; needed where it was given
            to `quantize` as a module, as no file holds it.

    Returns:
        The library.

    Raises:
        VitqError: nothing compiled there, or several targets (they are listed).

    Example:
        >>> vitq.load("out/")(pixels)
    """
    return Library(Path(folder), None, None if model is None else GivenModel.of(model))


def opened(model: "Quantized | Library | str | Path") -> tuple[Path, Workspace, GivenModel | None]:
    """Take an exported artifact that may be written to: the object's own, or a copy.

    Args:
        model: quantized, compiled, or where an artifact or a QDQ file lies.

    Returns:
        The artifact's folder (a foreign file as it is), its workspace, and the float model if it is
        in hand.

    Raises:
        VitqError: nothing of this.
    """
    if isinstance(model, Library) and model._workspace is not None:
        return open_artifact(model.folder).folder, model._workspace, model._module
    if isinstance(model, Quantized):
        export(model._artifact)
        return model.folder, model._workspace, model._module
    if not isinstance(model, Library | str | Path):
        raise VitqError(
            f"model is a {type(model).__name__}: give what vitq.quantize returned, the folder of "
            "an artifact, or a QDQ .onnx file"
        )
    workspace = Workspace()
    path = model.folder if isinstance(model, Library) else Path(model)
    if path.is_file():
        return path, workspace, None
    artifact: Artifact = workspace.adopt(path)
    if not artifact.is_foreign:
        export(artifact)
    return artifact.folder, workspace, model._module if isinstance(model, Library) else None
