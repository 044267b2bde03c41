"""What a worker process does with a device: one session at a time, kept between calls.

All of this may hang or crash with what is at the other end, which is why it runs in a process of
its own (`compiler.remote.client`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.remote.device import Device, parse_device
from vitq.compiler.remote.tracker import Offer
from vitq.compiler.tuning.measure import BLOCKS, MIN_ROUNDS, Inputs, constant_copies, inputs_of
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.quantization.graph.outputs import join

VM_MEMORY = "pooled"
PROBE_S = 20.0


@dataclass
class _Session:
    """The session of this process.

    Attributes:
        remote: TVM's.
        machines: loaded models, by the name of their file.
        uploaded: files that are there.
    """

    remote: Any
    machines: dict[str, Any]
    uploaded: set[str]


_sessions: list[_Session] = []


def attach(offer: Offer, limit_s: float) -> Device:
    """Open a session.

    Args:
        offer: of the tracker.
        limit_s: after which the device ends the session.

    Returns:
        What the device says of itself.
    """
    from tvm import rpc

    detach()
    remote = rpc.connect(offer.host, offer.port, offer.word, session_timeout=math.ceil(limit_s))
    _sessions.append(_Session(remote, {}, set()))
    return parse_device(str(remote.get_function("vitq.device")()))


def detach() -> None:
    """Close the session, if there is one; the device serves the next client."""
    while _sessions:
        session = _sessions.pop()
        session.machines.clear()
        try:
            session.remote.get_function("CloseRPCConnection")()
        except Exception:  # it is gone already
            continue


def time_in_turn(
    paths: Sequence[str], inputs: Inputs, budget_s: float, rounds: int, threads: int
) -> list[list[float]]:
    """Seconds of kernels of one task, measured in turn as `compiler.tuning.measure` does here.

    Args:
        paths: of the libraries.
        inputs: what to call them with.
        budget_s: of one measurement.
        rounds: how often each is measured.
        threads: that a kernel runs on.

    Returns:
        For each library its times; fewer where it failed.
    """
    from tvm.error import RPCError

    remote = _sessions[-1].remote
    _set_threads(threads)
    arrays, constants = inputs_of(inputs)
    tensors = [_tensor(array) for array in arrays]
    mask = sum(1 << i for i in constants)
    plan = (float(budget_s), BLOCKS, MIN_ROUNDS, constant_copies(inputs), mask)
    function = remote.get_function("vitq.time")
    names = [_upload(path) for path in paths]
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(rounds):
        for name, found in zip(names, times, strict=True):
            try:
                found.append(float(function(name, inputs.kernel.name, *plan, *tensors)))
            except RPCError:  # said by the device, which is still there
                continue
    return times


def _set_threads(threads: int) -> None:
    big_cores = 1
    _sessions[-1].remote.get_function("runtime.config_threadpool")(big_cores, threads)


def _upload(path: str) -> str:
    """Send a file, once in a session; returns its name there."""
    session, name = _sessions[-1], Path(path).name
    if name not in session.uploaded:
        session.remote.upload(path, name)
        session.uploaded.add(name)
    return name


def _tensor(array: Any) -> Any:
    import tvm

    return tvm.runtime.tensor(array, _sessions[-1].remote.cpu(0))


def load_model(path: str, name: str, threads: int) -> None:
    """Load a library of the virtual machine.

    Args:
        path: here.
        name: that it gets there.
        threads: of TVM's pool.
    """
    from tvm import relax

    session = _sessions[-1]
    _set_threads(threads)
    session.remote.upload(path, name)
    module = session.remote.load_module(name)
    session.machines[name] = relax.VirtualMachine(module, session.remote.cpu(0), VM_MEMORY)


def infer(name: str, pixels: UInt8Array) -> IntArray:
    """One batch through a loaded model.

    Args:
        name: of the model.
        pixels: (B, C, H, W) uint8.

    Returns:
        (B, classes) codes; of several results their rows (`quantization.graph.outputs`).
    """
    machine = _sessions[-1].machines[name]
    machine.set_input("main", _tensor(pixels))
    machine.invoke_stateful("main")
    found = machine.get_outputs("main")
    results = found if isinstance(found, Sequence) else [found]
    return join((np.array(result.numpy()) for result in results), len(pixels))


def time_model(name: str, runs: int) -> tuple[list[float], int]:
    """Milliseconds of runs on the last input, by the device's clock, and its peak memory."""
    device = _sessions[-1].remote.cpu(0)
    module = _sessions[-1].machines[name].module
    evaluator = module.time_evaluator("invoke_stateful", device, number=1, repeat=runs)
    return [1e3 * seconds for seconds in evaluator("main").results], peak_bytes()


def peak_bytes() -> int:
    """Return the most memory that the session's process had."""
    return int(_sessions[-1].remote.get_function("vitq.memory")())
