"""Each server of `normbank up`, killed and stopped again and again under load.

    python -m bench.chaos.servers [--times 10] [--faults kill:postgres,stop:child,…]

Starts a service of its own in a temporary folder. Prints one JSON line for
each fault: seconds until it was noticed, until the server was replaced, and until
the service worked again; then one for each kind of fault, and one for the jobs that were accepted.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.chaos.service import MAIN_PROCESSES, Load, Service, drawn_scan, running, wait_until
from cli.client import FINISHED, ClientError

SERVERS = (*MAIN_PROCESSES, "child")
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
FAULTS = [f"{how}:{server}" for how in SIGNALS for server in SERVERS]
GIVE_UP_S = 300.0
APART_S = 3.0
"""Between two faults. Each server has its turn, so that every life is longer than the 20 s from
which on a server counts as sound: five short ones within a minute end `up`."""


def replaced(service: Service, server: str, first: psutil.Process) -> bool:
    process = service.find(server)
    return process is not None and process.pid != first.pid and not first.is_running()


def shoot(service: Service, fault: str, number: int) -> dict[str, Any]:
    """One fault, from a service that works to one that works again."""
    how, server = fault.split(":")
    if math.isinf(wait_until(service.works, GIVE_UP_S)):
        raise SystemExit("the service does not work")
    first = service.find(server)
    assert first is not None
    started = time.monotonic()
    first.send_signal(SIGNALS[how])
    wait_until(lambda: not first.is_running(), GIVE_UP_S)
    noticed_s = time.monotonic() - started
    wait_until(lambda: replaced(service, server, first), GIVE_UP_S)
    replaced_s = time.monotonic() - started
    wait_until(service.works, GIVE_UP_S)
    works_s = time.monotonic() - started
    time.sleep(APART_S)
    return {
        "fault": fault,
        "number": number,
        "noticed_s": round(noticed_s, 1),
        "replaced_s": round(replaced_s, 1),
        "works_s": round(works_s, 1),
        "zombies": service.zombies(),
        "up_lives": service.process.poll() is None,
    }


def summary(fault: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst of one kind of fault."""
    facts: dict[str, Any] = {"fault": fault, "times": len(lines)}
    for name in ("noticed_s", "replaced_s", "works_s"):
        seconds = [line[name] for line in lines]
        facts |= {f"{name}_median": statistics.median(seconds), f"{name}_max": max(seconds)}
    return facts


def outcomes(service: Service, jobs: list[str]) -> dict[str, int]:
    """How the accepted jobs have ended, once all have."""
    states: dict[str, int] = {}
    with service.client() as client:
        for job_id in jobs:
            job: dict[str, Any] = {}
            deadline = time.monotonic() + GIVE_UP_S
            while job.get("state") not in FINISHED and time.monotonic() < deadline:
                try:
                    job = client.get(f"/jobs/{job_id}")
                except ClientError:
                    job = {}
                time.sleep(0.2)
            state = str(job.get("state", "unknown"))
            states[state] = states.get(state, 0) + 1
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--faults", default=",".join(FAULTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running() as service:
        with Load(service, drawn_scan(Path(folder))) as load:
            faults = options.faults.split(",")
            shot: dict[str, list[dict[str, Any]]] = {fault: [] for fault in faults}
            for number in range(1, options.times + 1):
                for fault in faults:
                    shot[fault].append(shoot(service, fault, number))
                    print(json.dumps(shot[fault][-1]), flush=True)
            for fault, lines in shot.items():
                print(json.dumps(summary(fault, lines)), flush=True)
        print(json.dumps({"answers": load.counts, "jobs": outcomes(service, load.jobs)}))


if __name__ == "__main__":
    main()
