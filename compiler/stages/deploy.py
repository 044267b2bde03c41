"""Stage ``deploy``: a bundle with which a device runs a model, and if wanted on the device."""

from dataclasses import replace
from pathlib import Path

from vitq.compiler.deploy.bundle import Bundle, DeployOptions, write_bundle
from vitq.compiler.deploy.device import send
from vitq.compiler.support.locks import alone


@alone(lambda folder, options, to=None: options.out)
def deploy(folder: Path, options: DeployOptions, to: str | None = None) -> Bundle:
    """Run the stage.

    Args:
        folder: the target's folder.
        options: flavour and where to.
        to: ``user@host`` or ``user@host:folder`` to copy it to and verify it on; None for nowhere.

    Returns:
        The bundle, verified where this machine or an emulator can run it.

    Raises:
        VitqError: nothing compiled, no compiler for the target, no runtime libraries, no connection
            to the device, or the bundle computes other integers.
    """
    bundle = write_bundle(folder, options)
    return bundle if to is None else replace(bundle, said=send(bundle.folder, to))
