"""Bundles of real DeiT-Tiny for ARM: bits, sizes and instructions."""

from pathlib import Path

import numpy as np
import pytest

from tests.compiler.bundles import run
from tests.compiler.test_deploy_device import emulator, need_emulation
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.deploy.bundle import FLAVOURS, DeployOptions
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target

MOST_BYTES = {"vm": 13.7e6, "static": 8.2e6}
PLANNED_BYTES = 2 << 20
"""What an inference of the static flavour may take beside the weights."""
INSTRUCTIONS = {"rpi5": 140e6, "graviton3": 105e6, "rpi4": 440e6}
BOTH = "rpi5"
"""Where both flavours run: they hold the same kernels, and an emulator takes its time."""


@pytest.mark.parametrize("target", INSTRUCTIONS)
def test_real_deit_tiny(deit: Artifact, tmp_path: Path, target: str) -> None:
    flavours = FLAVOURS if target == BOTH else ("static",)
    need_emulation(target, flavours[-1])
    folder = compile_model(deit.folder, CompileOptions(target=get_target(target)))
    pixels = np.random.default_rng(3).integers(0, 256, (2, 3, 224, 224), np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    wanted = open_compiled(folder).reference()(pixels)
    before = emulator(get_target(target).emulation.cpu)  # type: ignore[union-attr]
    for flavour in flavours:
        made = deploy(folder, DeployOptions(out=tmp_path / flavour, flavour=flavour))
        assert made.measured.verified == "emulated"
        assert made.size_bytes < MOST_BYTES[flavour]
        assert made.measured.instructions is not None
        assert made.measured.instructions <= INSTRUCTIONS[target]
        picture = str(tmp_path / "x.npy")
        code, out, error = run(made.folder, "infer", picture, "--raw", before=before)
        assert code == 0, error
        found = [[int(word) for word in line.split()] for line in out.splitlines()]
        assert np.array_equal(found, wanted)
        memory = made.manifest["memory"]
        if flavour == "static":
            assert memory["arena_bytes"] + memory["workspace_bytes"] < PLANNED_BYTES
