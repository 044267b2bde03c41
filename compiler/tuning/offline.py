"""Times that were measured elsewhere (`compiler.cuda.kit`) become records of a log."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from compiler.targets import Target
from compiler.tuning.log import FAILED_S, RECORDS, WORKLOADS, prune, writing
from compiler.tuning.workload import Task
from numerics.errors import VitqError

logger = logging.getLogger(__name__)

US = 1e-6


def import_results(
    path: Path, tasks: list[Task], target: Target, log: Path, pruned: bool = False
) -> int:
    """Write a kit's results to a log.

    Args:
        path: ``results.json`` of ``python3 -m gpu_kit``.
        tasks: of the model (`compiler.tuning.workload.extract`); others in the file are left out.
        target: of the kit.
        log: folder.
        pruned: whether only the best records of the tasks are kept.

    Returns:
        Records written.

    Raises:
        VitqError: not such a file, a candidate computed other bits, or nothing for these tasks.
    """
    found, gpu = _read(path)
    known = {task.text: task for task in tasks}
    wrong = [text for text, points in found.items() if not all(p["same_bits"] for p in points)]
    if wrong:
        raise VitqError(f"{path}: candidates of {wrong[0]} computed other bits: please report this")
    if not set(found) & set(known):
        raise VitqError(f"{path} has no times for this model and batch size: make a kit for them")
    from tvm.s_tir import meta_schedule as ms
    from tvm.target import Target as TvmTarget

    from compiler.tuning.space import record_of

    count, tvm_target = 0, TvmTarget(target.tvm_config())
    with writing(log, target, processor=gpu):
        database = ms.database.JSONDatabase(
            str(log / WORKLOADS), str(log / RECORDS), allow_missing=True
        )
        for text, points in found.items():
            if text not in known:
                continue
            task = known[text]
            workload = database.commit_workload(task.mod)
            for point in points:
                seconds = 10 * FAILED_S if point["us"] is None else US * point["us"]
                record = record_of(task, workload, point["values"], [seconds], tvm_target)
                database.commit_tuning_record(record)
                count += 1
        if pruned:
            prune(log, {task.text: task.kernel.schedule() for task in tasks})
    logger.info("tune: %d records of %s in %s", count, path, log)
    return count


def _read(path: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Points by task, and the GPU's name."""
    try:
        content = json.loads(path.read_text())
        gpu = str(content.get("gpu") or "unknown").split(",")[0]
        tasks: dict[str, list[dict[str, Any]]] = {}
        for task in content["tasks"]:
            for point in task["points"]:
                us = point["us"]
                if us is not None and not (math.isfinite(us) and us > 0):
                    raise ValueError(f"a time of {us} us")
                entry = {"values": point["values"], "us": us}
                entry["same_bits"] = point.get("same_bits", us is None)
                tasks.setdefault(task["task"], []).append(entry)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VitqError(f"{path} is not the result of a kit: {error}") from error
    return tasks, gpu
