"""The table of targets."""

import pytest

from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target import host, qemu, tools
from vitq.compiler.target import table as targets
from vitq.compiler.target.choice import get_target, target_names
from vitq.compiler.target.host import missing_flags
from vitq.compiler.target.table import CPU_TARGETS, TARGETS
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.errors import VitqError


def test_names_are_unique_and_resolve() -> None:
    assert len(set(target_names())) == len(target_names())
    for name in TARGETS:
        assert get_target(name).name == name
    assert get_target("cpu").name == "cpu"


def test_unknown_target_lists_the_choices() -> None:
    with pytest.raises(VitqError, match=r"'zx81' does not exist: choose cpu, x86-vnni"):
        get_target("zx81")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rpi3", r"\(arm64 fits it\)"),
        ("Raspberry-Pi-4", r"\(rpi4 fits it\)|did you mean rpi4"),
        ("sm87", r"\(give --target cuda --arch sm_87\)"),
        ("x86_avx2", r"did you mean x86-avx2\?"),
    ],
)
def test_the_nearest_target_is_named(name: str, hint: str) -> None:
    with pytest.raises(VitqError, match=hint):
        get_target(name)


def test_the_nearest_architecture_is_named() -> None:
    with pytest.raises(VitqError, match=r"sm87 \(did you mean sm_87\?\): choose from sm_75"):
        get_target("cuda", ("sm87",))


def test_cpu_is_the_best_level_that_the_flags_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    levels = {
        "x86-vnni": {*targets.AVX512, *targets.AVX2},
        "x86-avxvnni": set(targets.AVX_VNNI),
        "x86-avx2": set(targets.AVX2),
        "x86-64": set(),
    }
    for name, flags in levels.items():
        monkeypatch.setattr(host, "host_flags", lambda flags=flags: flags)
        assert get_target("cpu").config == TARGETS[name].config
    monkeypatch.setattr(host.platform, "machine", lambda: "riscv64")
    with pytest.raises(VitqError, match="riscv64"):
        get_target("cpu")


def test_missing_flags_are_named() -> None:
    assert missing_flags(TARGETS["x86-avx2"], {"avx2", "fma"}) == ["bmi2"]


def test_no_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    with pytest.raises(VitqError, match="apt-get install g"):
        find_compiler(get_target("cpu"))


def test_tvm_accepts_every_configuration() -> None:
    from tvm.target import Target

    for target in TARGETS.values():
        kind = "llvm" if target.gpu is None else "cuda"
        assert Target(target.tvm_config()).kind.name == kind


def test_a_failing_compiler_says_what_it_could_not_build() -> None:
    with pytest.raises(VitqError, match="false cannot build runner: "):
        qemu._build("false", [], "runner")


def test_an_emulator_that_counts_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_plugin", lambda emulation: [])
    monkeypatch.setattr(qemu, "_start", lambda *arguments: "no totals")
    with pytest.raises(VitqError, match=f"{qemu.EMULATOR} counted nothing: no totals"):
        qemu.count_program(["program"], get_target("rpi4"))


@pytest.mark.parametrize("name", sorted(CPU_TARGETS))
def test_every_target_gives_the_same_integers(name: str, artifact: Artifact) -> None:
    if missing_flags(TARGETS[name], host.host_flags()):
        pytest.skip(f"this processor cannot run {name}")
    folder = compile_model(artifact.folder, CompileOptions(target=get_target(name)))
    assert all(check.different == 0 for check in verify(folder, count=8))
