"""A study as a Ray job: sent with the working directory, then followed until it ends.

The job's driver is `ganstudy run` on the cluster's head. Whoever follows it may leave at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp  # comes with ray[default], which jobs need
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ganstudy.exits import CLUSTER_LOST, INTERRUPTED
from ganstudy.provenance import holds_secret, redact
from ganstudy.sweep.source import ClusterError

EXCLUDES = (
    *("/runs/", "/mlruns/", "/mlartifacts/", "mlflow.db", "*.pt", "*.parquet"),
    *("*_cache/", "*.egg-info/", "/build/", "/dist/", ".env", ".env.*"),
)
"""What a study's code does not need, beside .gitignore, .rayignore and Ray's own excludes."""
STOP_SECONDS = 600
"""What `ray job stop` leaves a driver to write its tables; Ray alone would leave it 3 s."""
PROBE_SECONDS, LOST_SECONDS = 5.0, 30.0
"""How often the head is asked whether it is there, and after what silence it is lost."""
STARTING_SECONDS = 30.0
"""How long a head that has just been started is given to take jobs."""
NOISY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk",
         "ray._private.runtime_env.packaging")  # fmt: skip


class JobError(ValueError):
    """The job cannot be sent."""


class Ended(NamedTuple):
    """How a job ended; `exit_code` is None if its driver never came to an end of its own."""

    stopped: bool
    exit_code: int | None
    message: str

    @property
    def code(self) -> int:
        """The exit code to end with: the driver's, 130 if stopped, 3 if it was lost."""
        if self.exit_code is None:
            return INTERRUPTED if self.stopped else CLUSTER_LOST
        # Of a driver ended by a signal, as a shell gives it.
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code

    @property
    def told(self) -> str:
        """How the job ended, as the rest of a sentence."""
        return "was stopped" if self.stopped else f"was lost: {self.message}"


class Asked(NamedTuple):
    """What is to run as a job: the options of `ganstudy run` that make sense there."""

    study: Path
    runs: str
    name: str | None = None
    overrides: Sequence[str] = ()
    max_trials: int | None = None
    extend: bool = False
    tracking_uri: str | None = None

    def arguments(self, directory: Path) -> list[str]:
        """Return the command line of `ganstudy`, to be run in a copy of `directory`.

        Raises:
            JobError: If the study is not in `directory`, if results would be lost with the job's
                copy of it, or if a secret would be shown to all who see the cluster's jobs.
        """
        study = self.study.resolve()
        if not study.is_relative_to(directory.resolve()):
            raise JobError(
                f"{self.study}: not in the working directory {directory}, which is what the job "
                f"gets; go to a folder that holds it"
            )
        if not (self.runs.startswith("/") or "://" in self.runs):
            raise JobError(
                f"--runs {self.runs}: the job runs in a copy of this directory that Ray deletes; "
                f"give the absolute path of a folder that all nodes share, or s3://BUCKET/PREFIX"
            )
        uri = self.tracking_uri
        if uri is not None and not ("://" in uri and re.match("sqlite:///[^/]", uri) is None):
            raise JobError(
                f"--tracking-uri {uri}: the job runs in a copy of this directory that Ray "
                f"deletes; give a server, http://HOST:5000"
            )
        options = {"--name": self.name, "--max-trials": self.max_trials, "--tracking-uri": uri}
        arguments = ["run", str(study.relative_to(directory.resolve())), "--address", "auto"]
        arguments += ["--runs", self.runs]
        for option, value in options.items():
            arguments += [] if value is None else [option, str(value)]
        for override in self.overrides:
            arguments += ["--set", override]
        arguments += ["--extend"] if self.extend else []
        for argument in arguments:
            if holds_secret(argument):
                raise JobError(
                    f"{redact(argument)}: what stands at *** would be shown to all who see the "
                    f"cluster's jobs. Set it in the environment of the machines instead: "
                    f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or AWS_ACCESS_KEY_ID "
                    f"and AWS_SECRET_ACCESS_KEY"
                )
        return arguments


class Jobs:
    """The jobs of one cluster, by the address of its dashboard."""

    def __init__(self, address: str) -> None:
        """Find the cluster.

        Args:
            address: As in http://head:8265.

        Raises:
            JobError: If no cluster answers there, or it refuses our token.
        """
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise JobError(f"the dashboard's address is needed, http://HEAD:8265, got {address}")
        self._address = address
        self._place = url.hostname, url.port or (443 if url.scheme == "https" else 80)
        try:
            _reach(self._place)
            with _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # they would override ours
                self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise JobError(f"{address}: {_token(error)}") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise JobError(f"no Ray dashboard at {address}: {error}") from error

    def send(self, name: str, arguments: Sequence[str], directory: Path) -> str:
        """Send `ganstudy ARGUMENTS` to be run on the head in a copy of `directory`.

        Returns:
            The job's name on the cluster, which begins with `name`.

        Raises:
            JobError: If the cluster does not take it.
        """
        begun = time.monotonic()
        while True:
            try:
                return self._submit(f"{name}-{uuid.uuid4().hex[:6]}", arguments, directory)
            except (OSError, RuntimeError, ValueError) as error:
                starting = "No available agent" in str(error)  # the head came up just now
                if not starting or time.monotonic() - begun > STARTING_SECONDS:
                    raise JobError(f"the cluster does not take the job: {error}") from error

    def _submit(self, job: str, arguments: Sequence[str], directory: Path) -> str:
        return self._client.submit_job(
            # exec: signals and exit code are the driver's, not a shell's.
            entrypoint=f"exec {shlex.join(['python', '-m', 'ganstudy.cli', *arguments])}",
            submission_id=job,
            runtime_env={
                "working_dir": str(directory),
                "excludes": list(EXCLUDES),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
            },
        )

    def follow(self, job: str, write: Callable[[str], object]) -> Ended:
        """Pass on what the job prints, from its beginning until it has ended.

        Raises:
            ClusterError: If the cluster is silent for `LOST_SECONDS` or no longer knows the job.
        """
        return asyncio.run(self._follow(job, write))

    def ways_on(self, job: str) -> str:
        """Return how to follow, stop and resume what the job runs."""
        ray = f"ray job {{}} --address {redact(self._address)}"
        return (
            f"follow it:  {ray.format('logs')} --follow {job}\n"
            f"stop it:    {ray.format('stop')} {job}\n"
            f"go on with its study, once it has ended: {ray.format('submit')} -- "
            f"python -m ganstudy.cli resume DIR --address auto"
        )

    async def _follow(self, job: str, write: Callable[[str], object]) -> Ended:
        follower = asyncio.create_task(self._tail(job, write))
        watch = asyncio.create_task(self._watch())  # a head without power closes no connection
        await asyncio.wait((follower, watch), return_when=asyncio.FIRST_COMPLETED)
        done, rest = (follower, watch) if follower.done() else (watch, follower)
        rest.cancel()
        await asyncio.gather(rest, return_exceptions=True)
        return await done

    async def _tail(self, job: str, write: Callable[[str], object]) -> Ended:
        """Pass on the log; it is told from its beginning after every lost connection."""
        written = 0
        while True:
            position = 0
            try:
                async for text in self._client.tail_job_logs(job):
                    write(text[max(0, written - position) :])
                    position += len(text)
                    written = max(written, position)
                details = await asyncio.to_thread(self._client.get_job_info, job)
                if details.status.is_terminal():
                    return _ended(details)
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                if "does not exist" in str(error):
                    raise ClusterError(f"the cluster no longer knows the job {job}") from error
            await asyncio.sleep(1)

    async def _watch(self) -> Ended:
        """Raise ClusterError once nobody has answered for long; until then, never return."""
        heard = time.monotonic()
        while True:
            try:
                await asyncio.to_thread(_reach, self._place)
                heard = time.monotonic()
            except OSError as error:
                if time.monotonic() - heard > LOST_SECONDS:
                    host, port = self._place
                    raise ClusterError(
                        f"the cluster at {host}:{port} was lost: {error}"
                    ) from error
            await asyncio.sleep(PROBE_SECONDS)


def _ended(details: JobDetails) -> Ended:
    first = (details.message or "").partition("\n")[0]  # more lines would be the log once more
    stopped = details.status == JobStatus.STOPPED
    return Ended(stopped, details.driver_exit_code, first)


def _token(error: AuthenticationError) -> str:
    """Return Ray's page of advice on tokens as one line."""
    first = str(error).partition("\n")[0]
    return (f"{first}. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the "
            f"cluster's token")  # fmt: skip


def _reach(place: tuple[str, int]) -> None:
    """Raise OSError if nothing listens there."""
    socket.create_connection(place, timeout=5).close()


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Hide environment variables for a while."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
