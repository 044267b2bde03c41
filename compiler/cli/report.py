"""What the command line prints: tables for a person, JSON for a program."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitq.compiler.support.tables import print_table


def print_artifact(content: dict[str, Any]) -> None:
    """Print what `compiler.stages.inspect.inspect` found."""
    for name, target in content["targets"].items():
        _print_target(name, target)
    if "quantizers" in content:
        print_table(
            ["module", "result", "operator", "scale", "zero point", "range"],
            [
                [q["module"], q["name"], q["op"], f"{q['scale']:.6g}", str(q["zero_point"]),
                 f"{q['qmin']}..{q['qmax']}"]
                for q in content["quantizers"]
            ],
            "quantizers",
        )  # fmt: skip
    if "layers" in content:
        rows = [
            [layer["module"], layer["name"], layer["op"], layer["what"]]
            for layer in content["layers"]
        ]
        print_table(["module", "layer", "operator", "widths and codes"], rows, "layers")
    facts = content.get("provenance", {})
    shown = ("model", "weights", "calibration", "method", "nonlinear", "versions", "command")
    print_table(["provenance", ""], [[key, str(facts[key])] for key in shown if key in facts], "")


def print_checks(checks: Sequence[Any], folder: Path, what: tuple[str, str]) -> None:
    """Print what `compiler.stages.verify` compared.

    Args:
        checks: `compiler.stages.verify.Check`, one or more.
        folder: of the library.
        what: heads of the names and of the numbers of pictures.
    """
    rows = [[c.name, str(c.pictures), str(c.values), str(c.different), c.against] for c in checks]
    device = checks[0].device
    title = f"bit-exact: {folder}" + (f" on device {device}" if device else "")
    print_table([*what, "integers", "different", "against"], rows, title)


def print_evaluation(rows: Sequence[Any], folder: Path) -> None:
    """Print what `compiler.stages.evaluate` found.

    Args:
        rows: `compiler.stages.scores.Row`, one or more.
        folder: of the library.
    """
    from vitq.compiler.stages.output_scores import OUTPUT_HEAD, table_cells
    from vitq.compiler.stages.scores import table_rows

    head = ["backend", "top-1", "top-5", "agreement", "cosine", "SQNR dB", "seconds"]
    print_table(head, list(table_rows(rows)), f"{rows[0].images} pictures: {folder}")
    results = [cell for row in rows for cell in table_cells(row.name, row.outputs)]
    if results:
        print_table(OUTPUT_HEAD, results, "each result beside the float model's")


def print_tuning(result: Any) -> None:
    """Print what `compiler.stages.tune.tune` came to."""
    rows = [
        [t.task, str(t.calls), f"{t.trials}" + (f" ({t.failed} failed)" if t.failed else ""),
         f"{t.untuned_us:.1f}", f"{t.tuned_us:.1f}", f"{t.gain:.2f}",
         " ".join(f"{name}={value}" for name, value in t.values.items())]
        for t in result.tasks
    ]  # fmt: skip
    gain = result.untuned_us / result.tuned_us
    untuned, tuned = (f"{us:.1f}" for us in (result.untuned_us, result.tuned_us))
    trials = str(sum(t.trials for t in result.tasks))
    rows.append(["all calls of one run", "", trials, untuned, tuned, f"{gain:.2f}", ""])
    head = ["task", "calls", "trials", "untuned us", "tuned us", "gain", "schedule"]
    title = f"{result.new_trials} new trials in {result.seconds:.0f} s: {result.log}"
    print_table(head, rows, title)


def _print_target(name: str, target: dict[str, Any]) -> None:
    tightest = target["accumulators"]["tightest"]
    islands = target["float_islands"]
    rows = [
        ["input", _tensor(target["inputs"][0])],
        *(["output", f"{_tensor(out)}, scale {out['scale']:.6g}"] for out in target["outputs"]),
        ["library", f"{target['size_bytes'] / 2**20:.2f} MiB"],
        ["float islands", str(len(islands)) + "".join(f" {island}" for island in islands)],
        ["accumulators", f"{target['accumulators']['proven']} proven to fit"],
    ]
    if tightest:
        reach = max(-tightest["low"], tightest["high"]) / tightest["limit"]
        what = f"{tightest['op']} {tightest['var']}: {tightest['what']}"
        rows.append(["tightest", f"{what}, {100 * reach:.1f} % of its limit"])
    for source, count in target["schedule_sources"].items():
        rows.append([f"schedules: {source}", f"{count} kernels"])
    rows += [[op, str(count)] for op, count in target["integer_ops"].items()]
    print_table(["target", name], rows, "")


def _tensor(info: dict[str, Any]) -> str:
    return f"{info['name']} {'x'.join(map(str, info['shape']))} {info['dtype']}"
