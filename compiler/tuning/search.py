"""MetaSchedule's scheduler, strategy and cost model over our spaces, with our builder and runner.

Every trial goes to the log the moment it is measured, so that a killed run loses the one that
was being measured and no other.
"""

import json
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from vitq.compiler.support.compat import no_tensor_intrinsics
from vitq.compiler.support.worker import WorkerError
from vitq.compiler.tuning.bench import Attempt
from vitq.compiler.tuning.log import Entry
from vitq.compiler.tuning.session import Point, Session, State
from vitq.compiler.tuning.space import knob_features, space_of, values_of
from vitq.compiler.tuning.space import point as schedule_of
from vitq.compiler.tuning.workload import SPACE, Task, space_text, text_of

logger = logging.getLogger(__name__)

BATCH = 8
UNBOUNDED = 1 << 20
WARMUP = 16
"""Measurements before the cost model is asked."""
NEGLIGIBLE = 0.001
"""Part of the model's time below which a task keeps its untuned schedule."""
RIVALS = 3
"""Points that are measured in turn at the end, beside the untuned one."""
ROUNDS = 3


def measure_defaults(session: Session) -> None:
    """Return the untuned point of each task first: what tuning finds is never worse."""
    missing = [(s, s.default) for s in session.states if s.default not in s.known]
    for start in range(0, len(missing), BATCH):
        if session.is_over:
            return
        batch = missing[start : start + BATCH]
        built = session.build(batch)
        session.measure([(*job, library) for job, library in zip(batch, built, strict=True)])


def search(session: Session, seed: int) -> None:
    """Run MetaSchedule until the budget is spent or every space is exhausted."""
    states = [state for state in _that_matter(session.states) if not _is_exhausted(state)]
    if session.is_over or not states:
        return
    model = cost_model([state.task for state in session.states], seed)
    contexts = [context_of(session, state.task, seed + i) for i, state in enumerate(states)]
    warm_up(states, contexts, model)
    callbacks = [ms.measure_callback.UpdateCostModel(), _StopWhenOver(session)]
    trials = _Trials(session)
    try:
        ms.task_scheduler.GradientBased(seed=seed).tune(
            contexts, [float(state.task.calls) for state in states], UNBOUNDED, UNBOUNDED, BATCH,
            _Builder(trials), _Runner(trials), callbacks, session.database, model,
        )  # fmt: skip
    except Exception:  # what a callback raises arrives as an error of TVM
        if session.stopped_by:
            raise session.stopped_by from None
        if not session.finished:
            raise


def _that_matter(states: Sequence[State]) -> list[State]:
    """Tasks that take a part of the model's time that is worth a batch of trials."""
    times = {
        id(state): state.task.calls * state.ranked()[0][1].seconds
        for state in states
        if state.ranked()
    }
    least = NEGLIGIBLE * sum(times.values())
    return [state for state in states if times.get(id(state), math.inf) >= least]


def _is_exhausted(state: State) -> bool:
    return len(state.known) >= math.prod(len(k.choices) for k in state.task.knobs.values())


def context_of(session: Session, task: Task, seed: int) -> Any:
    """Return what MetaSchedule searches a task with."""
    strategy = ms.search_strategy.EvolutionarySearch(
        population_size=128, init_measured_ratio=0.3, init_min_unmeasured=32,
        genetic_num_iters=3, genetic_mutate_prob=0.85, eps_greedy=0.15,
    )  # fmt: skip
    with no_tensor_intrinsics():
        return ms.TuneContext(
            task.mod,
            target=session.tvm_target,
            space_generator=space_of(task, seed),
            search_strategy=strategy,
            task_name=task.text,
            rand_state=seed + 1,
            num_threads=1,
        )


def cost_model(tasks: Sequence[Task], seed: int) -> Any:
    """MetaSchedule's boosted trees; random numbers where xgboost is not installed."""
    try:
        import xgboost  # noqa: F401
    except ImportError:
        logger.info("tune: xgboost is not installed, the search is random: pip install vitq[tune]")
        return ms.cost_model.RandomModel(seed=seed)
    config = ms.cost_model.xgb_model.XGBConfig(seed=seed, nthread=1)
    return ms.cost_model.XGBModel(
        extractor=knob_features(tasks), config=config, num_warmup_samples=WARMUP, num_tuning_cores=1
    )


def warm_up(states: Sequence[State], contexts: Sequence[Any], model: Any) -> None:
    """Show the cost model what the log already knows."""
    for state, context in zip(states, contexts, strict=True):
        if state.known:
            entries = state.known.values()
            results = [ms.runner.RunnerResult([entry.seconds], None) for entry in entries]
            model.update(context, candidates_of(state.task, list(state.known)), results)


def candidates_of(task: Task, points: Sequence[Point]) -> list[Any]:
    """Points as MetaSchedule's candidates."""
    arguments = ms.arg_info.ArgInfo.from_prim_func(task.mod["main"])
    return [ms.MeasureCandidate(schedule_of(task, dict(point)), arguments) for point in points]


class _Trials:
    """What builder and runner share: which library is which trial."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.states = {
            (state.task.text, space_text(state.task.knobs)): state for state in session.states
        }
        self.built: dict[str, tuple[State, Point]] = {}

    def find(self, mod: Any) -> tuple[State, Point]:
        """Return the task and the point of a candidate."""
        state = self.states[text_of(mod), str(mod["main"].attrs[SPACE])]
        return state, tuple(sorted(values_of(mod).items()))

    def build(self, mods: Sequence[Any]) -> list[Any]:
        """Compile the candidates that are new."""
        found = [self.find(mod) for mod in mods]
        new = [(state, point) for state, point in found if point not in state.known]
        built = iter([] if self.session.is_over else self.session.build(new))
        results = []
        for state, point in found:
            if point in state.known:
                name = f"known {state.task.text} {json.dumps(point)}"
                self.built[name] = state, point
                results.append(ms.builder.BuilderResult(name, None))
                continue
            library = next(built, WorkerError("the budget is spent"))
            if isinstance(library, WorkerError):
                if not self.session.is_over:
                    self.session.measure([(state, point, library)])
                results.append(ms.builder.BuilderResult(None, str(library)))
                continue
            self.built[library] = state, point
            results.append(ms.builder.BuilderResult(library, None))
        return results

    def run(self, paths: Sequence[str]) -> list[Any]:
        """Time candidates, or remember their times."""
        jobs = [(*self.built.pop(path), path) for path in paths]
        new = [job for job in jobs if job[1] not in job[0].known]
        times = dict(zip([path for *_, path in new], self.session.measure(new), strict=True))
        return [_result(times.get(path, state.known.get(point))) for state, point, path in jobs]


def _result(found: float | WorkerError | Entry | None) -> Any:
    """MetaSchedule's result of a measurement, new or remembered."""
    if isinstance(found, Entry):
        return ms.runner.RunnerResult([found.seconds] if found.works else None, None)
    if isinstance(found, float):
        return ms.runner.RunnerResult([found], None)
    return ms.runner.RunnerResult(None, str(found))


@derived_object
class _Builder(ms.builder.PyBuilder):
    """Compiles the kernels that descriptors stand for."""

    def __init__(self, trials: _Trials) -> None:
        super().__init__()
        self.trials = trials

    def build(self, build_inputs: Sequence[Any]) -> list[Any]:
        """Answer a call by MetaSchedule for one batch of a task."""
        with self.trials.session.noting_stops():
            return self.trials.build([item.mod for item in build_inputs])


@derived_object
class _Future(ms.runner.PyRunnerFuture):
    """A measurement that is made."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found

    def done(self) -> bool:
        """Accept every module."""
        return True

    def result(self) -> Any:
        """Return what was measured."""
        return self.found


@derived_object
class _Runner(ms.runner.PyRunner):
    """Times libraries, on all devices at once where there are several."""

    def __init__(self, trials: _Trials) -> None:
        super().__init__()
        self.trials = trials

    def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
        """Answer a call by MetaSchedule for what was built."""
        with self.trials.session.noting_stops():
            found = self.trials.run([str(item.artifact_path) for item in runner_inputs])
        return [_Future(result) for result in found]


@derived_object
class _StopWhenOver(ms.measure_callback.PyMeasureCallback):
    """Ends the search when the budget is spent."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def apply(self, *_: Any) -> None:
        """Answer a call by MetaSchedule after each batch."""
        if self.session.is_over:
            self.session.finished = True
            raise RuntimeError("the budget is spent")


def confirm(session: Session) -> None:
    """Measure the best points of each task again, in turn with the untuned one.

    The lowest of many noisy times is as much luck as speed; records of this round hold several
    times and come before others. The points of a task are compared in one place.
    """
    jobs = [(state, points) for state in session.states if (points := _rivals(state))]
    with ThreadPoolExecutor(session.bench.places) as threads:
        for (state, _), (built, attempt) in zip(
            jobs, threads.map(lambda job: _compare(session, *job), jobs), strict=True
        ):
            for point, seconds in zip(built, attempt.seconds, strict=True):
                if len(seconds) == ROUNDS:
                    session.keep(state, point, seconds, attempt.device)


def _rivals(state: State) -> list[Point]:
    """Return what is to be compared, if anything."""
    rivals = state.ranked()[:RIVALS]
    if len(rivals) < 2 or all(entry.confirmed for _, entry in rivals):
        return []
    points = [point for point, _ in rivals]
    return points + ([] if state.default in points else [state.default])


def _compare(session: Session, state: State, points: Sequence[Point]) -> tuple[Any, Attempt]:
    built = session.build([(state, point) for point in points])
    found = [(p, path) for p, path in zip(points, built, strict=True) if isinstance(path, str)]
    paths = [path for _, path in found]
    return [point for point, _ in found], session.time_in_turn(state, paths, ROUNDS)
