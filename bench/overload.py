"""Twice the load that the service can carry: every request ends, nothing grows.

    python bench/overload.py SCAN [--seconds 600] [--factor 2] [--url …] [--key …]

Needs a running service on this machine. Requests for domains in turn begin at
`factor` times the rate of one scan after another, whatever became of the
earlier ones. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil

from cli.client import DEFAULT_URL
from cli.options import connect
from normbank.config import get_settings

DOMAINS = ("sim-t1w-3t", "sim-t1w-1p5t", "sim-t2w-3t", "sim-pd-3t", "sim-flair-3t")
HANGS_S = 600.0
PROBE_S = 0.25


@dataclass
class Seen:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    accepted_s: list[float] = field(default_factory=list)
    live_s: list[float] = field(default_factory=list)
    rss: list[tuple[float, float]] = field(default_factory=list)


def ask(url: str, key: str, scan: bytes, name: str, domain: str, seen: Seen) -> None:
    """One request, as a PACS would send it."""
    started = time.perf_counter()
    try:
        answer = httpx.post(
            f"{url}/segment",
            headers={"X-API-Key": key, "Accept": "application/json"},
            files={"scan": (name, scan)},
            data={"domain": domain},
            timeout=HANGS_S,
            trust_env=False,
        )
    except httpx.TimeoutException:
        seen.statuses["hung"] += 1
        return
    except httpx.HTTPError as error:
        seen.statuses[type(error).__name__] += 1
        return
    status = str(answer.status_code)
    if answer.status_code == 503 and "Retry-After" not in answer.headers:
        status = "503 without Retry-After"
    seen.statuses[status] += 1
    if answer.status_code == 200:
        seen.accepted_s.append(time.perf_counter() - started)


def watch(url: str, server: psutil.Process, seen: Seen, done: threading.Event) -> None:
    """`/livez`, and the memory of the server's process."""
    began = time.monotonic()
    with httpx.Client(trust_env=False, timeout=30) as client:
        while not done.wait(PROBE_S):
            started = time.perf_counter()
            client.get(f"{url}/livez").raise_for_status()
            seen.live_s.append(time.perf_counter() - started)
            seen.rss.append((time.monotonic() - began, server.memory_info().rss / 2**20))


def server_of(url: str) -> psutil.Process:
    """The process that listens on the URL's port."""
    port = urlsplit(url).port
    for connection in psutil.net_connections("tcp"):
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr.port == port
            and connection.pid
        ):
            return psutil.Process(connection.pid)
    raise SystemExit("nobody listens there on this machine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--factor", type=float, default=2.0)
    parser.add_argument("--queue", type=int, default=8, help="the service's NORMBANK_QUEUE_SCANS")
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default="")
    parser.add_argument("--service-data", type=Path, default=None)
    options = parser.parse_args()
    with connect(options.url, options.key, options.service_data) as client:
        alone = []
        for domain in DOMAINS[:3]:
            started = time.perf_counter()
            client.segment(options.scan, domain)
            alone.append(time.perf_counter() - started)
    scan_s = float(np.median(alone))
    key = options.key or (options.service_data or get_settings().data_dir) / "admin.key"
    key = key if isinstance(key, str) else key.read_text().strip()
    scan, seen, done = options.scan.read_bytes(), Seen(), threading.Event()
    watcher = threading.Thread(target=watch, args=(options.url, server_of(options.url), seen, done))
    watcher.start()
    began, sent, clients = time.monotonic(), 0, []
    while time.monotonic() - began < options.seconds:
        arguments = (
            options.url,
            key,
            scan,
            options.scan.name,
            DOMAINS[sent % len(DOMAINS)],
            seen,
        )
        client_thread = threading.Thread(target=ask, args=arguments)
        client_thread.start()
        clients.append(client_thread)
        sent += 1
        time.sleep(max(0.0, began + sent * scan_s / options.factor - time.monotonic()))
    for client_thread in clients:
        client_thread.join()
    done.set()
    watcher.join()
    warm = [(moment, mb) for moment, mb in seen.rss if moment > options.seconds / 4]
    moments, megabytes = zip(*warm, strict=True)
    slope = float(np.polyfit(moments, megabytes, 1)[0]) * 60
    p99 = float(np.percentile(seen.accepted_s, 99)) if seen.accepted_s else float("nan")
    print(
        json.dumps(
            {
                "seconds": options.seconds,
                "sent": sent,
                "answers": dict(seen.statuses),
                "ended": sum(seen.statuses.values()) - seen.statuses["hung"],
                "scan_s_alone": round(scan_s, 2),
                "accepted_p50_s": round(float(np.median(seen.accepted_s)), 2),
                "accepted_p99_s": round(p99, 2),
                "accepted_limit_s": round((options.queue + 2) * scan_s, 2),
                "scans_per_minute": round(60 * len(seen.accepted_s) / options.seconds, 2),
                "livez_p99_ms": round(1000 * float(np.percentile(seen.live_s, 99)), 1),
                "rss_mb_first": round(warm[0][1]),
                "rss_mb_last": round(warm[-1][1]),
                "rss_slope_mb_per_min": round(slope, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
