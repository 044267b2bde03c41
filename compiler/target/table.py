"""The table of targets. Nothing outside this file and the kernels knows what is compiled for.

A target is data: what TVM's code generator is told, which kernel primitives may be used, and which
processor flags a machine must have to run the result. ``cpu`` is the best level that this machine
has.
"""

from dataclasses import dataclass, replace
from typing import Any

from vitq.compiler.target.features import CpuFeatures, Features
from vitq.compiler.target.gpus import Gpu, gpu_of
from vitq.numerics.errors import VitqError


@dataclass(frozen=True)
class Cross:
    """How libraries are linked on a machine of another kind.

    Attributes:
        compiler: a C++ compiler.
        packages: the Debian packages that bring it and its libraries.
        zig: what the compiler of pip's ``ziglang`` calls the target; used where `compiler` lacks.
    """

    compiler: str
    packages: str
    zig: str


@dataclass(frozen=True)
class Emulation:
    """What stands in for a processor (`compiler.target.qemu`).

    Attributes:
        cpu: model of ``qemu -cpu``; it has the processor's instructions, not its speed.
        width: instructions started in one cycle.
        vector: vector instructions started in one cycle.
        multiply: vector multiplications, dot products apart.
        memory: loads and stores.
    """

    cpu: str
    width: int
    vector: int
    multiply: int
    memory: int


@dataclass(frozen=True)
class Target:
    """One entry of the table.

    Attributes:
        name: as on the command line.
        description: for a person.
        machine: ``platform.machine()`` values that it runs on.
        config: TVM's target dictionary; with a GPU that of its host.
        features: what the kernels may use.
        needs: processor flags (as in /proc/cpuinfo) that the code requires.
        compilers: C++ compilers that link for it on such a machine; the first one found is used.
        cross: what links for it on other machines, or None.
        emulation: what stands in for the processor on other machines, or None.
        gpu: what the kernels run on, or None.
        stands_for: the entry that ``cpu`` is on this machine.
    """

    name: str
    description: str
    machine: tuple[str, ...]
    config: tuple[tuple[str, Any], ...]
    features: Features
    needs: tuple[str, ...] = ()
    compilers: tuple[str, ...] = ("g++", "clang++", "c++")
    cross: Cross | None = None
    emulation: Emulation | None = None
    gpu: Gpu | None = None
    stands_for: str | None = None

    @property
    def entry(self) -> str:
        """The name in the table, also of ``cpu``."""
        return self.stands_for or self.name

    def tvm_config(self) -> dict[str, Any]:
        """Return the dictionary that ``tvm.target.Target`` takes."""
        host = {key: list(v) if isinstance(v, tuple) else v for key, v in self.config}
        if self.gpu is None:
            return host
        return {"kind": "cuda", "arch": self.gpu.newest, "host": host}

    @property
    def cpu(self) -> CpuFeatures:
        """`features` of a target that is a processor."""
        assert isinstance(self.features, CpuFeatures)
        return self.features

    def for_architectures(self, names: tuple[str, ...]) -> "Target":
        """Return the same for other GPUs.

        Raises:
            VitqError: for an architecture that is not known, or a target without a GPU.
        """
        if self.gpu is None:
            raise VitqError(f"target {self.name} has no GPU: --arch is for cuda")
        gpu = gpu_of(names)
        return replace(self, gpu=gpu, features=gpu.features)


X86 = ("x86_64", "AMD64")
AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")
AVX2 = ("avx2", "fma", "bmi2")
AVX_VNNI = (*AVX2, "avx_vnni")

ARM = ("aarch64", "arm64")
ARM_CROSS = Cross(
    "aarch64-linux-gnu-g++",
    "g++-aarch64-linux-gnu libc6-dev-arm64-cross",
    "aarch64-linux-gnu.2.28",
)


def _arm(
    name: str, description: str, mcpu: str, dot: str, needs: tuple[str, ...], emulation: Emulation
) -> Target:
    """Make an entry for 64-bit ARM on Linux; kernels work on four registers at once."""
    config = (("kind", "llvm"), ("mtriple", "aarch64-linux-gnu"), ("mcpu", mcpu))
    features = CpuFeatures(dot, 512)
    needs = ("aarch64", *needs)
    return Target(
        name, description, ARM, config, features, needs, cross=ARM_CROSS, emulation=emulation
    )


_ENTRIES = (
    Target(
        "x86-vnni",
        "x86-64 with AVX-512 and VNNI (Cascade Lake, Ice Lake, Zen 4 and later)",
        X86,
        (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "cascadelake")),
        CpuFeatures("vnni512", 512),
        AVX512,
    ),
    Target(
        "x86-avxvnni",
        "x86-64 with AVX-VNNI (Alder Lake and later client processors)",
        X86,
        (
            ("kind", "llvm"),
            ("mtriple", "x86_64-linux-gnu"),
            ("mcpu", "haswell"),
            ("mattr", ("+avxvnni",)),
        ),
        CpuFeatures("vnni256", 256),
        AVX_VNNI,
    ),
    Target(
        "x86-avx2",
        "x86-64 with AVX2 (Haswell, Zen and later)",
        X86,
        (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "haswell")),
        CpuFeatures("madd256", 256),
        AVX2,
    ),
    Target(
        "x86-64",
        "any x86-64",
        X86,
        (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "x86-64")),
        CpuFeatures("madd128", 128),
    ),
    _arm(
        "graviton3",
        "ARM Neoverse V1 (AWS Graviton3): int8 matrix products",
        "neoverse-v1",
        "smmla",
        ("asimddp", "i8mm", "sve"),
        Emulation("max", width=8, vector=4, multiply=2, memory=3),
    ),
    _arm(
        "rpi5",
        "ARM Cortex-A76 (Raspberry Pi 5): int8 dot products",
        "cortex-a76",
        "sdot",
        ("asimddp",),
        Emulation("cortex-a76", width=4, vector=2, multiply=1, memory=2),
    ),
    _arm(
        "jetson-orin-cpu",
        "ARM Cortex-A78AE (processor of NVIDIA Jetson Orin): int8 dot products",
        "cortex-a78ae",
        "sdot",
        ("asimddp",),
        Emulation("cortex-a76", width=4, vector=2, multiply=1, memory=2),
    ),
    _arm(
        "arm64",
        "any 64-bit ARM (armv8-a)",
        "generic",
        "neon",
        (),
        Emulation("cortex-a53", width=2, vector=1, multiply=1, memory=1),
    ),
    _arm(
        "rpi4",
        "ARM Cortex-A72 (Raspberry Pi 4)",
        "cortex-a72",
        "neon",
        (),
        Emulation("cortex-a72", width=3, vector=2, multiply=1, memory=2),
    ),
)


def _gpu(name: str, description: str, gpu: Gpu, arm: Target | None = None) -> Target:
    """Make an entry for a GPU beside any x86-64, or beside an ARM processor of the table."""
    if arm is not None:
        return replace(arm, name=name, description=description, features=gpu.features, gpu=gpu,
                       emulation=None)  # fmt: skip
    config = (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "x86-64"))
    return Target(name, description, X86, config, gpu.features, gpu=gpu)


CPU_TARGETS = {target.name: target for target in _ENTRIES}
_GPU_ENTRIES = (
    _gpu("cuda", "NVIDIA GPUs: Hopper, or those that --arch names", gpu_of(("sm_90",))),
    _gpu("h200", "NVIDIA H100 and H200 (sm_90)", gpu_of(("sm_90",))),
    _gpu("rtx2080ti", "NVIDIA GeForce RTX 2080 Ti (sm_75)", gpu_of(("sm_75",))),
    _gpu(
        "jetson-orin",
        "NVIDIA Jetson Orin: its GPU (sm_87) beside its ARM processor",
        gpu_of(("sm_87",)),
        CPU_TARGETS["jetson-orin-cpu"],
    ),
)
TARGETS = CPU_TARGETS | {target.name: target for target in _GPU_ENTRIES}
