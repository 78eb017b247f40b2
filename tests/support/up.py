"""`normbank up` in a process of its own, for the tests that start it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from cli.local.processes import child_environment, log_tail, python

NEITHER = {"NORMBANK_DATABASE_URL": "", "NORMBANK_REDIS_URL": "", "NORMBANK_BLOB_URL": ""}

MARKS = {
    "postgres": "bin/postgres",
    "valkey": "valkey-server",
    "api": "app.server",
    "worker": "worker.main",
    "listener": "worker.listener",
}
"""What the command line of each server's main process holds."""


class Up:
    """One `normbank up` in a process of its own."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.errors = data.with_suffix(".err")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                python("cli", "up", "--data", str(data), "--port", "0"),
                env=child_environment({**NEITHER, **environment}),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        assert self.ready.startswith("ready "), log_tail(self.errors)
        self.url = self.ready.split()[1]

    def family(self) -> list[psutil.Process]:
        """Every process it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def worker(self) -> psutil.Process | None:
        """The worker's main process."""
        return next((one for one in self.family() if "celery" in command_of(one)), None)

    def server(self, name: str) -> psutil.Process | None:
        """The main process of `postgres`, `valkey`, `api`, `worker`, or the worker's `child`."""
        if name == "child":
            worker = self.server("worker")
            children = worker.children() if worker is not None else []
            return next((one for one in children if "spawn_main" in command_of(one)), None)
        for process in psutil.Process(self.process.pid).children():
            if MARKS[name] in command_of(process):
                return process
        return None

    @property
    def key(self) -> str:
        return (self.data / "admin.key").read_text().strip()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"X-API-Key": self.key}, trust_env=False)

    def stop(self, number: int) -> float:
        """Signal it; the seconds until it had gone."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.rest, _ = self.process.communicate(timeout=60)
        return time.monotonic() - started


def command_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def running(data: Path, **environment: str) -> Iterator[Up]:
    """An `up` that is stopped at the end, if it has not been already."""
    up = Up(data, **environment)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)
