"""Working on copies of bundles: run the runner, change a file, write the hashes again."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(bundle: Path, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Exit code, output and error output of the runner.

    Args:
        bundle: its folder.
        arguments: of the runner.
        before: an emulator and its options.
    """
    command = [*before, str(bundle / "vitq-run"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, done.stderr


def is_one_line(text: str) -> bool:
    """Whether an error is told as promised."""
    return text.startswith("vitq-run: ") and text.count("\n") == 1


def rewrite_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest; all hashes are right afterwards."""
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    for file in content["files"]:
        data = (bundle / file["path"]).read_bytes()
        file["sha256"], file["size_bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    write_manifest(bundle, json.dumps(content))


def write_manifest(bundle: Path, text: str) -> None:
    """Any text as the manifest, with its hash."""
    (bundle / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
