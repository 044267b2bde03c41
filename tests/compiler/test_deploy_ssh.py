"""Bundles copied to a real ssh server: on the loopback interface, with keys of its own."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compiler.fleets import free_port, tracker_process, wait_for
from vitq.compiler.deploy.bundle import Bundle
from vitq.compiler.deploy.device import send
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.stages.verify import verify
from vitq.numerics.errors import VitqError

SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
SSHD = shutil.which("sshd", path=SEARCHED)
PROGRAMS = {name: shutil.which(name) for name in ("ssh", "scp", "ssh-keygen")}
MISSING = [name for name, path in {"sshd": SSHD, **PROGRAMS}.items() if path is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"{', '.join(MISSING)} missing: on Debian apt-get install openssh-server openssh-client",
)

SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""
CLIENT = """\
Host raspberrypi
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """user@host of a server; ssh and scp read a configuration that knows it."""
    port = free_port()
    for name in ("host", "user"):
        command = [str(PROGRAMS["ssh-keygen"]), "-q", "-t", "ed25519", "-N", "", "-f"]
        subprocess.run([*command, str(tmp_path / name)], check=True)
    for name, text in (("server", SERVER), ("client", CLIENT)):
        (tmp_path / name).write_text(text.format(port=port, folder=tmp_path))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("ssh", "scp"):
        script = f'#!/bin/sh\nexec {PROGRAMS[name]} -F {tmp_path / "client"} "$@"\n'
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (tmp_path / "log").open("w") as log:
        command = [str(SSHD), "-D", "-e", "-f", str(tmp_path / "server")]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        said = tmp_path / "log"
        wait_for(lambda: "listening" in said.read_text() or server.poll() is not None, "sshd")
        assert server.poll() is None, said.read_text()
        yield f"{getpass.getuser()}@raspberrypi"
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("flavour", ["static", "vm"])
def test_a_bundle_is_copied_and_verified_through_ssh(
    bundles: dict[str, Bundle], host: str, tmp_path: Path, flavour: str
) -> None:
    bundle = bundles[flavour].folder
    there = tmp_path / "device" / "models"
    for _ in range(2):  # the second time over the first
        assert "integers equal the golden ones" in send(bundle, f"{host}:{there}")
    sent = {path.relative_to(bundle): path for path in bundle.rglob("*") if path.is_file()}
    for name, path in sent.items():
        assert (there / name).read_bytes() == path.read_bytes()
        assert os.access(there / name, os.X_OK) == os.access(path, os.X_OK)


def test_a_device_behind_a_tunnel(bundles: dict[str, Bundle], compiled: Path, host: str) -> None:
    """As the README says; 127.0.0.2 stands for the device's own loopback interface."""
    port, there = free_port(), free_port()
    with tracker_process() as here:
        tunnels = ["-R", f"{there}:127.0.0.1:{here}", "-L", f"127.0.0.1:{port}:127.0.0.2:{port}"]
        serve = [str(bundles["vm"].folder / "vitq-serve"), "--tracker", f"127.0.0.1:{there}"]
        serve += ["--listen", "127.0.0.2", "--port", str(port), "--name", "far"]
        command = ["ssh", "-tt", "-o", "ExitOnForwardFailure=yes", *tunnels, host, *serve]
        session = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        tracker = Tracker("127.0.0.1", here, bundles["vm"].manifest["target"])
        try:
            wait_for(lambda: tracker.devices() == 1, "the device")
            checks = verify(compiled, count=3, tracker=tracker)
            assert all(c.different == 0 and c.device.startswith("far (") for c in checks)
        finally:
            session.terminate()
            session.wait()
        wait_for(lambda: tracker.devices() == 0, "the device's end")


def test_what_the_device_says_is_one_line(
    bundles: dict[str, Bundle], host: str, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(bundles["static"].folder, tmp_path / "damaged"))
    (damaged / "model.so").write_bytes(b"damaged")
    with pytest.raises(VitqError, match=r"verify on .*raspberrypi: .*model\.so is not the file"):
        send(damaged, f"{host}:{tmp_path / 'device'}")
    (tmp_path / "user.pub").write_text("")
    with pytest.raises(VitqError, match=r"--to .*raspberrypi: ssh failed .*Permission denied"):
        send(damaged, f"{host}:{tmp_path / 'device'}")
