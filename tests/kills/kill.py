"""SIGKILL a command at random moments; its rerun must complete and equal an unbroken run.

    python -m tests.kills.kill --kills 50 --seed 0

For each kill: what the command needs is copied, the command is started, killed within the time that
it took unbroken, and run again. Compared are all files (of JSON what is no
time, path or command line); nothing else may lie there. Measured times differ, so that of the log
of `tune` only its names are compared.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vitq.models.digits_vit.data import eval_images

ROOT = Path(__file__).resolve().parents[2]
ARTIFACT = "art/digits_vit/w8a8-minmax"
QUANTIZE = ("--method", "minmax", "--artifacts", "art", "--calib", "pictures", "--calib-count", "8")
VARYING = {"seconds", "command", "time", "date", "folder", "latency_ms", "timestamp"}
PICTURES = 24


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        name: of the command.
        arguments: of vitq.
        made: what it writes, relative to the current folder.
    """

    name: str
    arguments: tuple[str, ...]
    made: str


CASES = (
    Case("quantize", ("quantize", *QUANTIZE), "art"),
    Case("export", ("export", ARTIFACT), "art"),
    Case("compile", ("compile", ARTIFACT), "art"),
    Case("deploy", ("deploy", f"{ARTIFACT}/cpu", "--flavour", "static", "--out", "out/b"), "out"),
    Case("tune", ("tune", ARTIFACT, "--trials", "8", "--log", "log"), "log"),
    Case(
        "compare-methods",
        (
            *("compare-methods", *QUANTIZE[2:], "--method", "minmax,percentile"),
            *("--backend", "fake", "--pictures", "pictures", "--count", "8"),
        ),
        "art",
    ),
    Case(
        "zoo",
        (
            *("zoo", "digits_vit", "--recipes", "w8a8,w4a8", "--method", "minmax"),
            *("--calib", "pictures", "--calib-count", "8", "--artifacts", "art", "--count", "8"),
        ),
        "art",
    ),
)
"""In the order in which each needs what those before it wrote."""


def start(case: Case, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a command in a folder."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder.parent / "cache"), "XDG_DATA_HOME": str(folder / "data"),
    }  # fmt: skip
    command = [sys.executable, "-m", "vitq", *case.arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def complete(case: Case, folder: Path) -> float:
    """Run a command to its end; returns how long it took.

    Raises:
        RuntimeError: it failed, with its last line.
    """
    started = time.monotonic()
    process = start(case, folder)
    _, error = process.communicate()
    if process.returncode:
        last = error.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{case.name}: exit {process.returncode}: {last}")
    return time.monotonic() - started


def content(folder: Path) -> dict[str, str]:
    """What lies in a folder: file -> hash of what does not vary between two runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = hashlib.sha256(_lasting(path)).hexdigest()
        elif path.name.startswith("."):
            found[f"{path.relative_to(folder)}/"] = "a hidden folder"
    return found


def _lasting(path: Path) -> bytes:
    if "log" in path.parts and path.suffix == ".json":
        return str(len(path.read_bytes().splitlines()) > 0).encode()
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps(_without_times(json.loads(path.read_bytes())), sort_keys=True).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in VARYING}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def prepare(folder: Path) -> None:
    """Write the pictures that commands read."""
    pixels, labels = eval_images(PICTURES)
    for index, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        place = folder / "pictures" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{index}.png")


def kill_each(folder: Path, cases: Sequence[Case], kills: int, seed: int) -> list[str]:
    """Kill each command some times.

    Args:
        folder: empty, to work in.
        cases: commands in order; earlier ones are run if others need them.
        kills: how many over all commands.
        seed: of the moments.

    Returns:
        A line for each fault.
    """
    moments, faults = random.Random(seed), []
    work, after = folder / "work", folder / "after"
    prepare(work)
    for case in CASES[: 1 + max(map(CASES.index, cases))]:
        kept = folder / f"before-{case.name}"
        shutil.copytree(work, kept)
        seconds = complete(case, work)
        expected = content(work / case.made)
        work.rename(after)
        for _ in range(cases.index(case), kills, len(cases)) if case in cases else ():
            moment = moments.uniform(0, seconds)
            found = kill_once(case, kept, work, moment, expected)
            faults += found
            print(*found, sep="\n", end="\n" if found else "")
            print(f"{case.name}: killed after {moment:.2f} of {seconds:.1f} s", flush=True)
        shutil.rmtree(work, ignore_errors=True)
        after.rename(work)
    return faults


def kill_once(
    case: Case, kept: Path, place: Path, moment: float, expected: dict[str, str]
) -> list[str]:
    """Kill a command once and run it again; returns a line for each fault."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept, place)
    process = start(case, place)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    at = f"{case.name}, killed after {moment:.2f} s"
    try:
        complete(case, place)
    except RuntimeError as error:
        return [f"{at}: the rerun failed: {error}"]
    found = content(place / case.made)
    wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    return [f"{at}: {name} is not what an unbroken run leaves" for name in wrong]


def main() -> int:
    """Kill, and print the faults."""
    import tempfile

    parser = argparse.ArgumentParser(description="SIGKILL at random moments.")
    parser.add_argument("--kills", type=int, default=50, help="over all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a command")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    with tempfile.TemporaryDirectory() as folder:
        faults = kill_each(Path(folder), cases, options.kills, options.seed)
    print("\n".join(faults) or f"{options.kills} kills, 0 faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
