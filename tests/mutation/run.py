"""Mutation testing: every small change of the contract and of its proofs must fail a test.

    python -m tests.mutation.run [--minutes 40] [--seed 0] [--sample 20] [--only numerics/add.py]

A mutant runs in a fork of a process that has imported what is heavy; the changed module replaces
the file's on import, so that no file is touched. Its own tests come first, then the files of tests
that enter the changed function (``reach.py``), the quick ones first; the first failure ends it.
Results are kept in ``build/mutants.json``: a run that is stopped goes on, one after a change of a
module does that module anew, and one after a change of tests only its survivors (remove the file to
do all anew). Survivors have to be in ``explained.toml``; otherwise the exit code is 1.
"""

import argparse
import ast
import gc
import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from tests.mutation.mutate import Mutant, mutants
from tests.mutation.reach import Reach, Recorder

ROOT = Path(__file__).resolve().parents[2]
EXPLAINED = Path(__file__).with_name("explained.toml")
RESULTS = ROOT / "build" / "mutants.json"
PROOFS = ("check_accumulators.py", "reading/ranges.py", "dialect/operators/*.py")
"""In ``relay_passes``: the bounds and the records that they stand in."""
TESTS_OF_PROOFS = ("check_accumulators", "records", "operators", "interpreter")
Results = dict[str, str]
"""By mutant: `CAUGHT`, or the tests that it survived."""
CAUGHT = "caught"
CPU_LIMIT_S, LIMIT_S = 90, 900.0
"""A mutant that takes longer is caught: its tests loop, or wait."""
FEW_EXAMPLES, MANY_EXAMPLES = 25, 100
"""Of hypothesis: for a module's own tests, which catch nearly all, and for those of the rest."""
NO_ARITHMETIC = (
    "numerics/__init__.py",
    "numerics/arrays.py",
    "relay_passes/dialect/operators/__init__.py",
)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree.

    Args:
        name: of the module.
        tree: that it is compiled from.
    """

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.code = name, compile(tree, f"<mutant of {name}>", "exec")

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Only for the module."""
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed code."""
        exec(self.code, module.__dict__)


def modules() -> list[str]:
    """The files that are mutated."""
    patterns = [*(f"relay_passes/{name}" for name in PROOFS), "numerics/*.py"]
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    files = [path.relative_to(ROOT).as_posix() for path in paths]
    return [file for file in files if file not in NO_ARITHMETIC]


def covering(file: str) -> tuple[list[str], list[str]]:
    """A module's own tests, and all that are run where those find nothing."""
    if file.startswith("relay_passes"):
        own, *more = (f"tests/relay_passes/test_{name}*.py" for name in TESTS_OF_PROOFS)
    else:
        stem, folder = Path(file).stem, "tests/numerics"
        own, more = f"{folder}/test_{stem}.py", [f"{folder}/test_*.py"]
    first = [str(path) for path in sorted(ROOT.glob(own))]
    rest = [str(path) for pattern in more for path in sorted(ROOT.glob(pattern))]
    return first, list(dict.fromkeys([*first, *rest]))


def preload() -> None:
    """Import what every mutant needs and none changes, and spare the forks what is slow in them."""
    import hypothesis
    import pytest
    import tvm.relax

    assert pytest and tvm
    for name, examples in (("few", FEW_EXAMPLES), ("many", MANY_EXAMPLES)):
        hypothesis.settings.register_profile(
            name,
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=examples,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # a failure is enough
        )
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.freeze()


def reach(file: str) -> Reach:
    """What a module's tests enter, which has to be with all of them passing."""
    recorder = Recorder(ROOT)
    with tempfile.NamedTemporaryFile(suffix=".json") as recorded:

        def record() -> int:
            code = _pytest(covering(file)[1], "many", recorder)
            Path(recorded.name).write_text(json.dumps(recorder.found()))
            return code

        if not _passes(record):
            raise SystemExit(f"{file}: its tests fail without any change")
        return Reach(json.loads(Path(recorded.name).read_text()))


def survives(mutant: Mutant, tree: ast.Module, reached: Reach) -> bool:
    """Whether all tests pass on a changed module."""
    own, _ = covering(mutant.file)
    changed = Changed(f"vitq.{mutant.file.removesuffix('.py').replace('/', '.')}", tree)

    def passes(tests: list[str], profile: str) -> bool:
        def test() -> int:
            sys.meta_path.insert(0, changed)
            return _pytest(tests, profile)

        return not tests or _passes(test)

    return passes(own, "few") and passes(reached.tests(mutant, own), "many")


def _passes(test: Callable[[], int]) -> bool:
    """Whether a function returns 0 in a child that leaves with what it returns."""
    child = os.fork()
    if child == 0:
        os.setpgrp()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
        code = 1
        try:
            code = test()
        finally:
            os._exit(min(code, 1))
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _pytest(tests: list[str], profile: str, *plugins: object) -> int:
    """In a child: run tests, without a word."""
    import hypothesis
    import pytest

    hypothesis.settings.load_profile(profile)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--noconftest"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def hash_of(*paths: str) -> str:
    """Of the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()[:16]


def explained() -> dict[Mutant, str]:
    """The survivors that are known, each with why no test can see it."""
    content = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))
    found = {}
    for entry in content.get("mutant", []):
        why = entry.pop("why")
        found[Mutant(**entry)] = why
    return found


def main() -> int:
    """Run mutants until the time is over; report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=0, help="of the order and of a sample")
    parser.add_argument("--sample", type=int, help="at most so many of each file; without it: all")
    parser.add_argument("--only", action="append", help="a file, such as numerics/add.py")
    options = parser.parse_args()
    os.chdir(ROOT)
    preload()
    keys = {file: f"{file} {hash_of(file)}" for file in options.only or modules()}
    known = remembered(keys)
    end = time.monotonic() + 60 * options.minutes
    survivors, left, reached = [], 0, dict[str, Reach]()
    for file, key in keys.items():
        source, tests = (ROOT / file).read_text(), hash_of(*covering(file)[1])
        every = dict(mutants(file, source))
        drawn = sorted(every, key=str)
        random.Random(options.seed).shuffle(drawn)
        drawn = drawn[: options.sample]
        order = [mutant for mutant in drawn if known[key].get(str(mutant)) not in (CAUGHT, tests)]
        if order and tests not in reached:
            reached[tests] = reach(file)
        while order and time.monotonic() < end:
            mutant = order.pop()
            survived = survives(mutant, every[mutant], reached[tests])
            known[key][str(mutant)] = tests if survived else CAUGHT
            save(known)
        alive = [mutant for mutant in every if known[key].get(str(mutant)) == tests]
        done = sum(str(mutant) in known[key] for mutant in every)
        print(f"{file}: {done} of {len(every)} mutants, {len(alive)} survive", flush=True)
        survivors += alive
        left += len(every) - done
    return report(survivors, left)


def remembered(keys: dict[str, str]) -> dict[str, Results]:
    """Earlier results, without those of modules that have changed."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    kept = {key: value for key, value in known.items() if key.partition(" ")[0] not in keys}
    return kept | {key: known.get(key, {}) for key in keys.values()}


def save(known: dict[str, Results]) -> None:
    """Keep the results, so that a run can be stopped."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1))


def report(survivors: list[Mutant], left: int) -> int:
    """Print what is not explained; returns the exit code."""
    reasons = explained()
    unknown = [mutant for mutant in survivors if mutant not in reasons]
    for mutant in unknown:
        print(f"SURVIVES {mutant}")
    print(f"{len(survivors)} survivors, {len(unknown)} not explained; {left} mutants not run")
    return int(bool(unknown))


if __name__ == "__main__":
    sys.exit(main())
