"""Options and arguments that several commands of the command line share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.pictures.described import Described
from vitq.quantization.pictures.preprocessing import Color, Interpolation, Resize
from vitq.quantization.pictures.processors import read_processor

Mean = Annotated[str | None, typer.Option(help="input mean, three numbers with commas")]
Std = Annotated[str | None, typer.Option(help="input standard deviation, likewise")]
Preprocessor = Annotated[
    Path | None,
    typer.Option(help="how pictures become a foreign file's input: preprocessor_config.json"),
]
CropFraction = Annotated[float | None, typer.Option(help="likewise, as quantize takes it")]
Resizing = Annotated[Resize | None, typer.Option("--resize", help="likewise")]
Filter = Annotated[Interpolation | None, typer.Option("--interpolation", help="likewise")]
Channels = Annotated[Color | None, typer.Option("--color", help="likewise")]
BudgetBytes = Annotated[
    float | None, typer.Option(help="with --recipe mixed: bytes of all weights")
]
BudgetBitops = Annotated[
    float | None, typer.Option(help="with --recipe mixed: bit operations of one picture")
]
Artifacts = Annotated[Path, typer.Option(help="root folder of all artifacts")]
Target = Annotated[str, typer.Option(help="what to compile for; see vitq targets")]
Arch = Annotated[
    str | None, typer.Option(help="GPU architectures for target cuda, with commas: sm_75,sm_90")
]
Batch = Annotated[int, typer.Option(help="static batch size")]
Threads = Annotated[int | None, typer.Option(help="threads of the library")]
Pictures = Annotated[str | None, typer.Option(help="pictures: a folder or .npy")]
Classes = Annotated[
    Path | None,
    typer.Option(help="file with the model's classes: JSON name -> number, or a name on each line"),
]
EvaluateCount = Annotated[int | None, typer.Option(help="how many pictures, all if absent")]
Plot = Annotated[Path | None, typer.Option(help="picture to write: .png, .svg or .pdf")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Untuned = Annotated[bool, typer.Option("--untuned", help="every kernel's default schedule")]
TuningLog = Annotated[
    Path | None,
    typer.Option(help="folder of tuning records; the user's or the shipped one if absent"),
]
TrackerAddress = Annotated[
    str | None,
    typer.Option("--tracker", help="host:port of TVM's tracker: measure on devices behind it"),
]
Key = Annotated[str | None, typer.Option(help="of those devices; the target's name if absent")]
Emulate = Annotated[
    bool,
    typer.Option("--emulate", help="a CUDA library's kernels, thread by thread, without a GPU"),
]
Folder = Annotated[Path, typer.Argument(help="the artifact's folder, or a target's in it")]
Folders = Annotated[
    list[Path],
    typer.Argument(
        help="the artifact's folder, or a target's in it; of further ones the library takes part"
    ),
]


def tracker(address: str | None, key: str | None, target: Callable[[], str]) -> Any:
    """Return the tracker that is named, if any; the key is the target's name if not given."""
    from vitq.compiler.remote.tracker import parse_tracker

    if address is None:
        if key is not None:
            raise VitqError(f"--key {key} belongs to --tracker host:port: give both")
        return None
    return parse_tracker(address, key or target())


def numbers(text: str | None, name: str) -> tuple[float, ...] | None:
    """Numbers with commas; `name` is the option's."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise VitqError(f"--{name} {text!r}: write numbers with commas, 0.5,0.5,0.5") from error


def image_size(text: str | None) -> tuple[int, int] | None:
    """Read height and width: one number, or two with a comma."""
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.split(",")]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError as error:
        raise VitqError(f"--image-size {text!r}: write 224, or height,width: 224,160") from error
    return height, width


def pictures(
    file: Path | None,
    crop_fraction: float | None,
    resize: Resize | None,
    interpolation: Interpolation | None,
    color: Color | None,
) -> Described:
    """Return what options say of a foreign file's pictures."""
    given = Described(
        crop_fraction=crop_fraction, resize=resize, interpolation=interpolation, color=color
    )
    return given if file is None else given.over(read_processor(file))


def integers(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers with commas, none twice; `name` is the option's."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise VitqError(f"--{name} {text!r}: write whole numbers with commas, 1,8,32") from error
    return tuple(dict.fromkeys(found))


def words(text: str | None) -> tuple[str, ...] | None:
    """Names with commas."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def family(name: str | None) -> Nonlinear | None:
    """Return the family of nonlinear operators of that name, if one is given."""
    return None if name is None else Nonlinear.parse(name)
