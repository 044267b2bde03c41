"""What ``vitq deploy`` prints."""

from vitq.compiler.deploy.bundle import Bundle

VERIFIED = {
    "here": "the golden integers, on this machine",
    "emulated": "the golden integers, under qemu with the target's processor",
    "no": "not here: run ./vitq-run verify on the device",
}


def bundle_rows(bundle: Bundle) -> list[list[str]]:
    """Rows of a table."""
    manifest, memory = bundle.manifest, bundle.manifest["memory"]
    rows = [
        ["model", f"{manifest['model']}, for {manifest['target']} ({manifest['architecture']})"],
        ["flavour", manifest["flavour"]],
        ["size", f"{bundle.size_bytes / 1e6:.2f} MB"],
    ]
    if memory:
        planned = memory["arena_bytes"] + memory["workspace_bytes"]
        weights = memory["weights_bytes"]
        rows.append(["memory", f"{weights / 1e6:.2f} MB weights + {planned / 1e6:.2f} MB planned"])
    if bundle.measured.peak_bytes:
        rows.append(["peak", f"{bundle.measured.peak_bytes / 1e6:.1f} MB, the whole process"])
    if bundle.measured.instructions:
        millions = f"{bundle.measured.instructions / 1e6:.1f} million"
        rows.append(["instructions", f"{millions} for a batch, counted under qemu: no time"])
    rows.append(["verified", VERIFIED[bundle.measured.verified]])
    return [*rows, ["device", bundle.said]] if bundle.said else rows
