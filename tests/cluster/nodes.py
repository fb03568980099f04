"""Real Ray nodes, each in a network namespace of its own where the machine allows it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.conftest import ROOT
from tests.processes import descendants, trains, wait_for

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # else it depends on whether a token lies in the user's home
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # Nodes are given up as soon as in a real cluster whose machine has died: not within the test.
    "RAY_health_check_initial_delay_ms": "1000",
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
}


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@dataclass
class Host:
    """A machine of the cluster: a network namespace, or this machine itself."""

    address: str
    namespace: str | None = None
    started: list[subprocess.Popen[Any]] = field(default_factory=list)

    def start(self, *command: object, log: Path | None = None, **options: Any) -> subprocess.Popen:
        """Start a command on the host."""
        inside = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        output: IO[Any] | int = subprocess.DEVNULL if log is None else log.open("ab")
        process = subprocess.Popen(
            [*inside, *map(str, command)],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT | options.pop("env", {}), start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def processes(self) -> list[int]:
        """Return what runs on the host and was started by us."""
        if self.namespace is not None:
            told = subprocess.run(
                ["ip", "netns", "pids", self.namespace], capture_output=True, text=True
            ).stdout
            return [int(pid) for pid in told.split()]
        return [
            pid for process in self.started for pid in [*descendants(process.pid), process.pid]
        ]

    def kill(self) -> None:
        """Pull the plug: SIGKILL for everything on the host, at once."""
        for _ in range(3):  # what was being started in between
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for process in self.started:
            process.wait()
        self.started.clear()

    def trials(self) -> list[int]:
        """Return the processes that train on the host."""
        return [pid for pid in self.processes() if trains(pid)]


class Network:
    """Hosts that reach each other; two of one machine where namespaces are not allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        self.id = os.getpid() % 10000
        self.subnet = f"10.{100 + self.id % 100}.{self.id // 100 % 250}"
        self.bridge = f"gsb{self.id}"
        self.separate = self._bridge()

    def _bridge(self) -> bool:
        if os.getuid() != 0 or shutil.which("ip") is None:
            return False
        made = subprocess.run(["ip", "link", "add", self.bridge, "type", "bridge"], check=False)
        if made.returncode:
            return False
        ip("addr", "add", f"{self.subnet}.254/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        return True

    @property
    def outside(self) -> str:
        """The address at which hosts reach this machine."""
        return f"{self.subnet}.254" if self.separate else "127.0.0.1"

    def host(self) -> Host:
        """Add a host."""
        number = len(self.hosts) + 1
        host = Host("127.0.0.1")
        if self.separate:
            host = Host(f"{self.subnet}.{number}", f"gs{self.id}-{number}")
            ends = f"gsv{self.id}-{number}", f"gsw{self.id}-{number}"
            ip("netns", "add", host.namespace)
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            ip("link", "set", ends[1], "netns", host.namespace)
            ip("link", "set", ends[0], "master", self.bridge, "up")
            inside = ["-n", host.namespace]
            ip(*inside, "addr", "add", f"{host.address}/24", "dev", ends[1])
            ip(*inside, "link", "set", ends[1], "up")
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "route", "add", "default", "via", self.outside)
        self.hosts.append(host)
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
            if host.namespace is not None:
                ip("netns", "del", host.namespace)
        if self.separate:
            ip("link", "del", self.bridge)


def ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True)


class Cluster:
    """A head and workers that come and go."""

    def __init__(self, network: Network, cpus: int = 1, **environment: str) -> None:
        self.network, self.environment = network, environment
        self.scratch = tempfile.mkdtemp(prefix="gs", dir="/tmp")  # sockets' names must be short
        self.head = network.host()
        self.port = 6379 if network.separate else free_port()
        self._start(self.head, cpus, "--head", f"--port={self.port}", "--include-dashboard=false",
                    f"--temp-dir={self.scratch}")  # fmt: skip

    @property
    def address(self) -> str:
        return f"{self.head.address}:{self.port}"

    def worker(self, cpus: int = 1, hidden: Path | None = None) -> Host:
        """Add a node, from which a folder may be hidden as if it were another machine's."""
        host = self.network.host()
        # `ip netns exec` gives a process mounts of its own.
        first = ["sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
        self._start(host, cpus, f"--address={self.address}", before=first if hidden else ())
        return host

    def _start(self, host: Host, cpus: int, *options: str, before: Sequence[object] = ()) -> None:
        log = self.network.folder / f"ray-{len(self.network.hosts)}.log"
        host.start(
            *before, BIN / "ray", "start", "--block", f"--node-ip-address={host.address}",
            f"--num-cpus={cpus}", "--object-store-memory=80000000", *options,
            log=log, env=self.environment,
        )  # fmt: skip
        wait_for(lambda: "Ray runtime started" in log.read_text(), f"the node joins: {log}")

    def drive(self, host: Host, *arguments: object, log: Path) -> subprocess.Popen:
        """Run the command line on a host, as its user would."""
        line = [sys.executable, "-m", "ganstudy.cli", *map(str, arguments)]
        return host.start(*line, "--address", self.address, log=log, env=self.environment)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def s3_server(address: str) -> Iterator[dict[str, str]]:
    """Run an S3 server with a bucket `studies`; yield the environment that clients need."""
    machine = Host(address)
    port = free_port(address)
    endpoint = f"http://{address}:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    machine.start(BIN / "moto_server", "-H", address, "-p", port)
    try:
        wait_for(lambda: _made(endpoint, "studies"), "the S3 server answers")
        yield environment
    finally:
        machine.kill()


def _made(endpoint: str, bucket: str) -> bool:
    """Make a bucket, which moto takes from anybody; whether it worked."""
    request = urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
