"""A fresh `normbank up` in a folder of its own, the processes to shoot at, and some load."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil

from cli.client import Client, ClientError
from cli.local.processes import child_environment, log_tail, python
from normbank.imaging.nifti import write_scan
from normbank.imaging.scan import Scan
from simulate import SCANNERS, scan
from simulate.phantom import draw_head, head_affine

EMBEDDED = {"NORMBANK_DATABASE_URL": "", "NORMBANK_REDIS_URL": "", "NORMBANK_BLOB_URL": ""}
MAIN_PROCESSES = {
    "postgres": "bin/postgres",
    "valkey": "valkey-server",
    "api": "app.server",
    "worker": "worker.main",
}
"""What the command line of each server's main process holds."""

SHAPE, SPACING_MM = (96, 112, 96), 2.0
DOMAIN = "sim-t1w-3t"
LOOK_S = 0.1


class Service:
    """A running `normbank up`.

    Parameters
    ----------
    folder : holds its data and what it says
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.messages = folder / "data", folder / "messages"
        with self.messages.open("w") as messages:
            self.process = subprocess.Popen(
                python("cli", "up", "--data", str(self.data), "--port", "0"),
                env=child_environment(EMBEDDED),
                stdout=subprocess.PIPE,
                stderr=messages,
                text=True,
            )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        if not ready.startswith("ready "):
            raise SystemExit(f"it did not start\n{log_tail(self.messages)}")
        self.url = ready.split()[1]
        self.key = (self.data / "admin.key").read_text().strip()

    def client(self) -> Client:
        return Client(self.url, self.key)

    def find(self, name: str) -> psutil.Process | None:
        """One of `MAIN_PROCESSES`, or `child`, which does the worker's work."""
        with suppress(psutil.Error):
            if name == "child":
                worker = self.find("worker")
                children = worker.children() if worker is not None else []
                return next((one for one in children if "spawn_main" in command(one)), None)
            for process in psutil.Process(self.process.pid).children():
                if MAIN_PROCESSES[name] in command(process):
                    return process
        return None

    def works(self) -> bool:
        """Whether requests are answered and a worker lives."""
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.url}/readyz", timeout=5.0, trust_env=False)
            return answer.is_success and answer.json()["details"]["workers"].startswith("1 alive")
        return False

    def zombies(self) -> int:
        """Ended processes of the service that nobody has waited for."""
        states = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                states.append(process.status())
        return states.count(psutil.STATUS_ZOMBIE)


def command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def running() -> Iterator[Service]:
    """A service from nothing, and none of it left at the end."""
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        service = Service(Path(folder))
        try:
            yield service
        finally:
            service.process.send_signal(signal.SIGTERM)
            service.process.wait(60)


def wait_until(happens: Callable[[], bool], within_s: float) -> float:
    """Wait for something; the seconds it took, infinite where it does not happen in time."""
    started = time.monotonic()
    while not happens():
        if time.monotonic() - started > within_s:
            return float("inf")
        time.sleep(LOOK_S)
    return time.monotonic() - started


def drawn_scan(folder: Path, seed: int = 1) -> Path:
    """A simulated scan as a file."""
    labels = draw_head(seed, SHAPE, SPACING_MM)
    drawn = scan(labels, head_affine(SHAPE, SPACING_MM), SCANNERS["d1-t1w-3t"], seed)
    path = folder / "scan.nii.gz"
    path.write_bytes(write_scan(Scan(np.asarray(drawn.data), drawn.affine)))
    return path


class Load:
    """Clients that ask without pause: one for scans at once, one for scans as jobs.

    Attributes
    ----------
    counts : answers by kind
    jobs : ids of the accepted jobs
    """

    def __init__(self, service: Service, path: Path) -> None:
        self._service, self._path = service, path
        self._ending = threading.Event()
        self.counts: Counter[str] = Counter()
        self.jobs: list[str] = []
        self._threads = [
            threading.Thread(target=self._repeat, args=(ask, pause_s), daemon=True)
            for ask, pause_s in ((self._segment, 0.5), (self._submit, 5.0))
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(120)

    def _repeat(self, ask: Callable[[Client], None], pause_s: float) -> None:
        with self._service.client() as client:
            while not self._ending.wait(pause_s):
                try:
                    ask(client)
                except ClientError as error:
                    self.counts[f"failed {getattr(error, 'status', 'unreachable')}"] += 1

    def _segment(self, client: Client) -> None:
        client.segment(self._path, DOMAIN)
        self.counts["segmented"] += 1

    def _submit(self, client: Client) -> None:
        with self._path.open("rb") as file:
            accepted = client.call(
                "POST",
                "/segment",
                data={"domain": DOMAIN},
                files=[("scan", (self._path.name, file))],
                params={"accept": "doubtful"},  # a drawn head is none
                headers={"Prefer": "respond-async"},
            ).json()
        self.jobs.append(str(accepted["id"]))
        self.counts["submitted"] += 1
