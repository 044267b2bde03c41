"""The report for a person."""

from vitq.compiler.benchmark.benchmark import OWN, Report
from vitq.compiler.benchmark.profiling import Profile
from vitq.compiler.benchmark.rounds import Row
from vitq.compiler.benchmark.scaling import Scaling
from vitq.compiler.support.tables import print_table


def print_report(report: Report) -> None:
    """Machine, one table for each batch and number of threads, profiles, who was skipped."""
    _print_machine(report)
    for batch, threads in sorted({(row.batch, row.threads) for row in report.rows}):
        rows = [row for row in report.rows if (row.batch, row.threads) == (batch, threads)]
        _print_rows(rows, f"batch {batch}, threads {threads}{_where(rows[0])}")
    for profile in report.profiles:
        _print_profile(profile)
    if report.scaling is not None:
        _print_scaling(report.scaling)
    if report.skipped:
        cells = [[str(s[key]) for key in ("name", "batch", "threads", "reason")]
                 for s in report.skipped]  # fmt: skip
        print_table(["skipped", "batch", "threads", "why"], cells, "")


def _where(row: Row) -> str:
    if not row.device:
        return ""
    warning = " - EMULATED: these times mean nothing" if row.emulated else ""
    return f", device {row.device}{warning}"


def _print_rows(rows: list[Row], title: str) -> None:
    base = next((row for row in rows if row.name == OWN), rows[0])
    head = ["contestant", "median ms", "p10", "p90", "images/s", "ratio",
            "peak MiB", "model MiB", "file MiB"]  # fmt: skip
    cells = [
        [
            row.name,
            f"{row.median_ms:.2f}",
            f"{row.p10_ms:.2f}",
            f"{row.p90_ms:.2f}",
            f"{row.images_per_s:.1f}",
            f"{base.median_ms / row.median_ms:.2f}",
            f"{row.peak_rss_mb:.0f}",
            f"{row.model_rss_mb:.0f}",
            f"{row.size_mb:.1f}" if row.size_mb else "-",
        ]
        for row in sorted(rows, key=lambda row: row.median_ms)
    ]
    print_table(head, cells, f"{title}; ratio: time of {base.name} / its time")


def _print_profile(profile: Profile) -> None:
    peak = profile.peak
    head = ["kernel", "calls", "us", "in a run", "share", "MMAC", "GOPS", "of peak", "kB", "op/B"]
    cells = [
        [
            row.name,
            str(row.calls),
            f"{row.us:.2f}",
            f"{row.insitu_us:.2f}",
            f"{100 * row.total_us / 1e3 / profile.kernels_ms:.1f} %",
            f"{row.mac / 1e6:.2f}" if row.mac else "",
            f"{2 * row.gmac_s:.0f}" if row.mac else "",
            f"{100 * row.gmac_s / peak.gmac_s:.0f} %" if row.mac else "",
            f"{row.moved_bytes / 1e3:.1f}",
            f"{row.intensity:.0f}" if row.mac else "",
        ]
        for row in profile.kernels
    ]
    print_table(head, cells, f"{profile.library}: batch {profile.batch}, threads {profile.threads}")
    families = ", ".join(f"{name} {ms:.2f}" for name, ms in profile.families_ms().items())
    rows = [
        ["kernels, each in a loop", f"{profile.kernels_ms:.3f} ms ({families})"],
        ["kernels, inside whole runs", f"{profile.insitu_ms:.3f} ms, the instrument included"],
        ["whole run", f"{profile.latency_ms:.3f} ms"],
        ["beyond the kernels in loops", f"{profile.latency_ms - profile.kernels_ms:.3f} ms "
         "(caches colder, virtual machine, input)"],
        ["peak of the 8-bit dot product", f"{2 * peak.gmac_s:.0f} GOPS"],
        ["reading memory, L2 cache", f"{peak.memory_gb_s:.0f}, {peak.l2_gb_s:.0f} GB/s"],
    ]  # fmt: skip
    print_table(["sum", ""], rows, "")


def _print_scaling(scaling: Scaling) -> None:
    families = [fit.family for fit in scaling.fits[1:]]
    cells = []
    for size, profile in zip(scaling.sizes, scaling.profiles, strict=True):
        times, macs = profile.families_ms(), profile.families_mac()
        cells.append([
            f"{size} x {size}",
            str(profile.tokens),
            f"{profile.latency_ms:.2f}",
            *(_family(times.get(name, 0.0), macs.get(name, 0)) for name in families),
        ])
    head = ["pictures", "tokens N", "latency ms", *(f"{name} ms" for name in families)]
    print_table(head, cells, "time over tokens (GOPS in brackets)")
    rows = [
        [
            fit.family,
            f"N^{fit.exponent:.2f}",
            "" if fit.expected is None else f"N^{fit.expected:.2f}",
            f"{100 * fit.line_deviation:.1f} %",
        ]
        for fit in scaling.fits
    ]
    print_table(["fit", "time grows as", "operations grow as", "off a line by"], rows, "")


def _family(ms: float, mac: int) -> str:
    return f"{ms:.2f} ({2 * mac / ms / 1e6:.0f})" if mac else f"{ms:.2f}"


def _print_machine(report: Report) -> None:
    machine = report.machine
    caches = ", ".join(f"{k} {v / 2**10:.0f} KiB" for k, v in machine["cache_bytes"].items())
    cores = ", ".join(map(str, machine["cores_used"]))
    rows = [
        ["artifact", str(report.artifact)],
        ["processor", machine["processor"]],
        ["flags", " ".join(machine["flags"])],
        ["cores", f"{cores} of {machine['cores_present']}; load {machine['load_before']}; "
         f"governor {machine['governor']}{'; virtual' if machine['hypervisor'] else ''}"],
        ["caches", caches],
        ["system", f"{machine['system']}, Python {machine['python']}"],
        ["versions", ", ".join(f"{k} {v}" for k, v in machine["versions"].items())],
    ]  # fmt: skip
    print_table(["machine", ""], rows, "")
