"""The cluster: connecting to it, what it offers, and whether its head still answers."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import Any, NamedTuple

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ganstudy.provenance import RESULT_PACKAGES, code_hash
from ganstudy.storage import location, names_in, write_text
from ganstudy.study.spec import Resources
from ganstudy.sweep.ending import undisturbed
from ganstudy.sweep.source import ClusterError

HANDLERS_INSTALLED = "_ZN3ray6RayLog36is_failure_signal_handler_installed_E"
"""ray::RayLog::is_failure_signal_handler_installed_, as the linker names it."""
OBJECT_STORE_BYTES = 80 * 1024**2
"""Trials exchange nothing through Ray's object store; this is close to its minimum."""
GIBIBYTE = 1024**3
JOIN_SECONDS = 300.0
"""How long nodes may take to join when no trial fits yet."""
LOOK_SECONDS = 90.0
"""How long a node may take to start a process and look around."""
PROBE_SECONDS, SILENT_SECONDS = 2.0, 20.0
"""How often the head is probed, and after how long without an answer it is lost.

Ray itself ends the driver without a word after 60 s.
"""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Start a local Ray that ends with the block, or connect to the cluster at `address`.

    Raises:
        ClusterError: If there is none at `address`, or it does not let us in, or if no local Ray
            starts.
    """
    try:
        with warnings.catch_warnings(), own_signals():
            warnings.simplefilter("ignore")
            _connect(address)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        yield
    finally:
        with undisturbed():
            ray.shutdown()


def _connect(address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        try:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
        except Exception as error:  # after 30 s on a busy machine Ray raises just that
            advice = "a busy machine may need another try; --in-process works without Ray"
            raise ClusterError(
                f"Ray does not start on this machine ({error}): {advice}"
            ) from error
        return
    try:
        reach(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        told = (str(error).splitlines() or [""])[0]
        if "Failed to connect" in told:  # and yet it listens
            told += "; does it ask for a token? (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH)"
        raise ClusterError(f"no Ray cluster at {address}: {told}") from error


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep our signal handlers while Ray starts in the block, runs and shuts down.

    `ray.init` installs a handler of SIGTERM that exits without a message, and Ray's core one that
    aborts. `ray.shutdown` then resets SIGTERM to its default, which kills the process (see
    https://github.com/ray-project/ray/pull/65749). Installing ours again afterwards leaves gaps.
    Blocking signals does not close them, since two dozen of Ray's threads do not block any. So
    Ray's core takes its handlers for installed while it starts, and for removed when it ends.
    """
    utils, flag = ray._private.utils, core_handlers_installed()
    before, set_handler = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    flag.value = True
    try:
        yield
    finally:
        flag.value = False
        utils.set_sigterm_handler = set_handler
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # should Ray have found another way


def core_handlers_installed() -> ctypes.c_bool:
    """Return the flag by which Ray's core knows that it has installed its signal handlers."""
    try:
        return ctypes.c_bool.in_dll(ctypes.CDLL(ray._raylet.__file__), HANDLERS_INSTALLED)
    except (OSError, ValueError):  # a build of Ray that hides it
        return ctypes.c_bool()


def reach(address: str, seconds: float = 5.0) -> None:
    """Raise OSError if nothing listens at host:port, which Ray itself finds out in minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=seconds).close()


def request(resources: Resources) -> dict[str, float]:
    """Return what Ray sets aside for one trial, by Ray's names."""
    memory = int((resources.memory_gib or 0) * GIBIBYTE)
    asked = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": memory}
    return {kind: amount for kind, amount in asked.items() if amount}


def fitting(resources: Resources) -> int:
    """Return how many trials fit on the cluster at a time, each on one node.

    Raises:
        ClusterError: If not even one does; Tune would wait for ever.
    """
    asked = request(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(
        int(min(node.get(kind, 0) / amount for kind, amount in asked.items())) for node in nodes
    )
    if slots < 1:
        raise ClusterError(
            f"no trial fits: one asks for {offer(asked)}, the nodes offer "
            f"{'; '.join(map(offer, nodes))}"
        )
    return slots


def offer(found: dict[str, float]) -> str:
    """Return resources in words."""
    words = f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"
    return words + (f" and {memory / GIBIBYTE:.3g} GiB" if (memory := found.get("memory")) else "")


class NodeCheck(NamedTuple):
    """What one node has: its name, what its rows would depend on, and whether it sees a file."""

    node: str
    versions: Mapping[str, str]
    sees: bool


def check_node(folder: str, name: str) -> NodeCheck:
    """Return what this node has, and whether it sees the file `name` in `folder`."""
    return NodeCheck(platform.node(), versions(), name in names_in(location(folder)))


def versions() -> dict[str, str]:
    """Return the versions of all that can change a row."""
    found = {name: metadata.version(name) for name in RESULT_PACKAGES}
    return {"ganstudy": code_hash(), **found}


def check_cluster(
    resources: Resources, address: str, runs: str, say: Callable[[str], object]
) -> None:
    """Raise ClusterError unless trials can run on the cluster at `address` and record in `runs`.

    A trial must fit, and every node must have the code and versions that rows depend on, and see
    what others write in `runs`.
    Workers may join some minutes after their head: until a trial fits, `say` tells what is waited
    for.
    """
    with connected(address):
        _wait_for_room(resources, say)
        folder = location(runs)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".seen-by-{uuid.uuid4().hex[:8]}"
        write_text(probe, "")
        try:
            for found in _node_checks(runs, probe.name):
                _refuse_unfit(found, runs)
        finally:
            probe.unlink(missing_ok=True)


def _wait_for_room(resources: Resources, say: Callable[[str], object]) -> None:
    try:
        fitting(resources)
    except ClusterError as error:
        say(f"{error}; waiting {JOIN_SECONDS / 60:.0f} minutes for nodes to join")
    else:
        return
    request_resources(bundles=[request(resources)])  # a cluster that grows is asked for a node
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < JOIN_SECONDS:
            time.sleep(PROBE_SECONDS)
            with suppress(ClusterError):
                fitting(resources)
                return
        fitting(resources)
    finally:
        request_resources(bundles=[])  # else Ray would keep the node; trials ask for themselves


def _node_checks(folder: str, name: str) -> list[NodeCheck]:
    """Return what every node has and sees."""
    checks = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(check_node).options(
                num_cpus=0, scheduling_strategy=there, max_retries=0
            )
            checks[task.remote(folder, name)] = node["NodeManagerHostname"]
    found = []
    for task, host in checks.items():
        try:
            found.append(ray.get(task, timeout=LOOK_SECONDS))
        except ray.exceptions.GetTimeoutError:
            raise ClusterError(f"the node {host} starts no process of ours") from None
        except ray.exceptions.RayError as error:
            told = str(error).strip().splitlines()[-1]
            raise ClusterError(f"the node {host} cannot run ganstudy: {told}") from None
    return found


def _refuse_unfit(found: NodeCheck, folder: str) -> None:
    for name, version in versions().items():
        if found.versions.get(name) != version:
            raise ClusterError(
                f"the node {found.node} has another {name} than this machine: install the same "
                f"on every node, or rows would not compare"
            )
    if not found.sees:
        raise ClusterError(
            f"the node {found.node} does not see what is written in {folder}: --runs must be a "
            f"folder that all nodes share, or an object store (s3://...)"
        )


class Watchdog:
    """Probes the cluster's head and says when it is lost, which Ray tells nobody."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        """Call `lost`, in a thread, with the address of a head that has fallen silent."""
        self._lost = lost
        self._ended = threading.Event()
        self._address = str(ray.get_runtime_context().gcs_address)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        self._ended.set()

    def _watch(self) -> None:
        heard = time.monotonic()
        while not self._ended.wait(PROBE_SECONDS):
            try:
                reach(self._address, PROBE_SECONDS)
                heard = time.monotonic()
            except OSError:
                if time.monotonic() - heard > SILENT_SECONDS:
                    self._lost(self._address)
                    return
