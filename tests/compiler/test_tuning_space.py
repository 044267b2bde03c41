"""Tasks, and the space that MetaSchedule searches."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.s_tir import Schedule as TvmSchedule
from tvm.s_tir import meta_schedule as ms

from tests.compiler.tuning_templates import ADD, kernel_of, task_of
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.kernel import Kernel
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.support import compat
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning import space
from vitq.compiler.tuning.log import Entry, read_log, writing
from vitq.compiler.tuning.measure import Inputs, argument_sets, compile_kernel, save_constants
from vitq.compiler.tuning.schedules import Schedules, is_valid
from vitq.compiler.tuning.workload import Task, extract, task_text, workload
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError

ROOT = Path(__file__).resolve().parents[2]
TARGET = get_target("cpu")
POINTS = 3


def random_values(kernel: Kernel, numbers: random.Random) -> dict[str, int]:
    return {name: numbers.choice(knob.choices) for name, knob in kernel.knobs().items()}


def workload_hash(kernel: Kernel) -> str:
    return str(ms.database.Workload(workload(kernel)).as_json()[0])


def test_a_workload_is_the_same_in_another_process() -> None:
    code = (
        "from tests.compiler.tuning_templates import kernel_of\n"
        "from tests.compiler.test_tuning_space import workload_hash\n"
        "print(workload_hash(kernel_of()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == workload_hash(kernel_of())


def test_a_schedule_that_a_template_lacks_is_named() -> None:
    with pytest.raises(VitqError, match="kernel test_add has no schedule with lanes = 3"):
        kernel_of().schedule({"lanes": 3})


def test_a_task_does_not_depend_on_the_values_of_weights() -> None:
    plain = kernel_of(spec=(16, True))
    other = Kernel(
        ADD, (plain.inputs[0], TensorType((4096,), "int64")), plain.out, plain.features, (16, False)
    )
    assert task_text(plain) == task_text(other)
    assert workload_hash(plain) == workload_hash(other)
    assert len({task_text(k) for k in (plain, kernel_of(), kernel_of(size=64))}) == 3


def test_mutations_change_one_knob_to_another_choice() -> None:
    task, numbers = task_of(kernel_of()), random.Random(0)
    mutator = space.KnobMutator(numbers)
    trace = space.point(task, task.kernel.schedule()).trace
    seen = set()
    for _ in range(100):
        before = values_of_trace(task, trace)
        trace = mutator.apply(trace)
        after = values_of_trace(task, trace)
        assert is_valid(task.kernel, after) and before.keys() == after.keys()
        assert sum(before[name] != after[name] for name in before) == 1
        seen.add(tuple(after.values()))
    assert len(seen) > 12


def values_of_trace(task: Task, trace: object) -> dict[str, int]:
    """By MetaSchedule's own replay."""
    schedule = TvmSchedule(task.mod)
    trace.apply_to_schedule(schedule, remove_postproc=False)  # type: ignore[attr-defined]
    return space.values_of(schedule.mod)


def test_a_record_gives_the_same_kernel(tmp_path: Path) -> None:
    task, numbers = task_of(kernel_of()), random.Random(1)
    wanted = [random_values(task.kernel, numbers) for _ in range(6)]
    log = write_log(tmp_path / "log", [(task, values) for values in wanted])
    read = read_log(log)[task.text]
    database = ms.database.JSONDatabase(work_dir=str(log))
    replayed = [values_of_trace(task, record.trace) for record in database.get_all_tuning_records()]
    texts = [json.dumps(values, sort_keys=True) for values in wanted]
    assert sorted(json.dumps(values, sort_keys=True) for values in replayed) == sorted(texts)
    unique = list(dict(zip(texts, wanted, strict=True)).values())
    assert [entry.values for entry in read] == unique
    for entry in read:
        chosen = Schedules({task.text: [entry]})(task.kernel)
        tvm.ir.assert_structural_equal(
            build_kernel(task.kernel, chosen),
            build_kernel(task.kernel, entry.values),
            map_free_vars=True,
        )
        assert chosen == entry.values


def write_log(
    folder: Path, points: list[tuple[Task, dict[str, int]]], seconds: float = 1e-6
) -> Path:
    """A log of points that nobody measured."""
    target = tvm.target.Target(TARGET.tvm_config())
    with writing(folder, TARGET):
        database = ms.database.JSONDatabase(work_dir=str(folder))
        for task, values in points:
            committed = database.commit_workload(task.mod)
            database.commit_tuning_record(
                space.record_of(task, committed, values, [seconds], target)
            )
    return folder


@pytest.fixture(scope="module")
def tasks(artifact: Artifact) -> list[Task]:
    """Of the embedded model."""
    model = import_model(artifact.onnx, Meaning())
    return extract(model.integer.mod, TARGET.features, TARGET.tvm_config())


def test_tasks_are_shared_between_layers(tasks: list[Task]) -> None:
    assert len({task.text for task in tasks}) == len(tasks)
    assert any(task.calls > 1 for task in tasks)
    assert all(task.knobs for task in tasks)


def test_random_points_of_each_task_give_the_same_integers(
    tasks: list[Task], tmp_path: Path
) -> None:
    numbers = random.Random(2)
    for task in tasks:
        save_constants(tmp_path / "constants.npz", task.constants)
        inputs = Inputs(task.kernel, tmp_path / "constants.npz")
        arguments = argument_sets.__wrapped__(inputs)[0]
        expected, *found = outputs(task, arguments, numbers, tmp_path)
        for values, result in found:
            assert np.array_equal(expected[1], result), f"{task.text}: {values}"


def outputs(
    task: Task, arguments: list[object], numbers: random.Random, folder: Path
) -> Iterator[tuple[dict[str, int], IntArray]]:
    """Of the default point and some others."""
    points = [task.kernel.schedule(), *(random_values(task.kernel, numbers) for _ in range(POINTS))]
    for i, values in enumerate(points):
        path = compile_kernel(
            task.kernel, values, TARGET.tvm_config(), "g++", str(folder / f"{id(task)}_{i}.so")
        )
        result = tvm.runtime.tensor(np.full(task.kernel.out.shape, 77, task.kernel.out.dtype))
        tvm.runtime.load_module(path)[task.kernel.name](*arguments[:-1], result)
        yield values, result.numpy()


def test_the_cost_model_sees_values_and_sizes() -> None:
    small, large = task_of(kernel_of(size=64)), task_of(kernel_of())
    extractor = space.knob_features([small, large])
    with compat.no_tensor_intrinsics():
        context = ms.TuneContext(small.mod)
    rows = []
    for task in (small, large):
        for lanes in (1, 16):
            schedule = space.point(task, {"lanes": lanes, "blocks": 2})
            candidate = ms.MeasureCandidate(schedule, [])
            rows.append(extractor.extract_from(context, [candidate])[0].numpy())
    assert {row.shape for row in rows} == {rows[0].shape}
    assert len({row.tobytes() for row in rows}) == 4


def test_contexts_do_not_import_tensor_intrinsics() -> None:
    """They take 40 s; `compat.no_tensor_intrinsics` can go when TuneContext leaves them out."""
    with compat.no_tensor_intrinsics():
        ms.TuneContext(workload(kernel_of()), target=tvm.target.Target(TARGET.tvm_config()))
    assert "tvm.s_tir.tensor_intrin.cuda" not in sys.modules


def test_entries_that_failed_are_never_chosen() -> None:
    kernel = kernel_of()
    failed = Entry("", {"lanes": 8, "blocks": 1}, 1e10, False)
    schedules = Schedules({task_text(kernel): [failed]})
    assert schedules(kernel) == {}
    assert schedules.applied[0].source == "default: no record"
