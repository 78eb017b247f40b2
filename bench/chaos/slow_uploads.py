"""Clients that send slowly, connect and say nothing, or leave: what others notice of them.

    python -m bench.chaos.slow_uploads [--seconds 40] [--slow 50] [--silent 1500] [--leaving 10]

Starts a service of its own in a temporary folder. Prints a JSON line for normal requests alone,
one for those beside slow uploads with the same key, one for `/livez` and `/readyz` beside
silent connections, and one for clients that leave in the middle of their scan.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from app.http.connections import raise_open_files_limit
from bench.chaos.service import DOMAIN, Service, drawn_scan, running
from normbank.config import Settings

BYTE_EVERY_S = 3.0
SILENT_S = 25.0
SETTLED_S = 5.0
PROBE_S = 0.1
LOOK_S = 0.02
GIVE_UP_S = 120.0
BOUNDARY = "bench"


@dataclass
class Seen:
    """What one kind of client saw: seconds of each answer, and how many of each status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        p50, p99 = np.percentile(self.seconds or [float("nan")], [50, 99])
        return {
            "answers": dict(self.statuses),
            "p50_s": round(float(p50), 3),
            "p99_s": round(float(p99), 3),
        }


def ask(client: httpx.Client, method: str, path: str, seen: Seen, **request: Any) -> None:
    began = time.perf_counter()
    try:
        status = str(client.request(method, path, **request).status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    seen.statuses[status] += 1
    if status == "200":
        seen.seconds.append(time.perf_counter() - began)


def client_of(service: Service) -> httpx.Client:
    headers = {"X-API-Key": service.key}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60, trust_env=False)


def segment_for(service: Service, scan: bytes, seconds: float) -> Seen:
    """One request after another."""
    seen, ends = Seen(), time.monotonic() + seconds
    with client_of(service) as client:
        while time.monotonic() < ends:
            ask(
                client,
                "POST",
                "/segment",
                seen,
                files={"scan": ("scan.nii.gz", scan)},
                data={"domain": DOMAIN},
            )
    return seen


def connect(service: Service) -> socket.socket:
    url = urlsplit(service.url)
    return socket.create_connection((url.hostname or "", url.port or 0), timeout=10)


def begin_upload(service: Service, body: bytes, length: int) -> socket.socket:
    """A connection that has sent the head of an upload and so much of its body."""
    connection = connect(service)
    head = (
        f"POST /segment HTTP/1.1\r\nHost: bench\r\nX-API-Key: {service.key}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def form_of(scan: bytes) -> bytes:
    """A whole multipart body."""
    begin = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    return (
        f'{begin}"domain"\r\n\r\n{DOMAIN}\r\n{begin}"scan"; filename="scan"\r\n\r\n'.encode()
        + scan
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


@contextmanager
def slow_uploads(service: Service, scan: bytes, count: int) -> Iterator[Counter[str]]:
    """So many uploads that send a byte now and then, and begin anew when they are ended."""
    ending, ended = threading.Event(), Counter[str]()
    body = form_of(scan)

    def dribble() -> None:
        while not ending.is_set():
            sent = 400
            with begin_upload(service, body[:sent], len(body)) as connection:
                connection.settimeout(BYTE_EVERY_S)
                while not ending.is_set():
                    try:
                        answer = connection.recv(65536)
                    except TimeoutError:
                        with suppress(OSError):
                            connection.sendall(body[sent : sent + 1])
                        sent += 1
                        continue
                    except OSError:
                        answer = b""
                    ended[answer[9:12].decode() or "closed"] += 1
                    break

    threads = [threading.Thread(target=dribble) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield ended
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def measure_slow(service: Service, scan: bytes, seconds: float, count: int) -> None:
    """Normal requests alone, then beside slow uploads."""
    segment_for(service, scan, 3.0)  # the first ones are slower
    alone = segment_for(service, scan, seconds)
    print(json.dumps({"normal": "alone", **alone.facts()}), flush=True)
    with slow_uploads(service, scan, count) as ended:
        time.sleep(1.0)
        beside = segment_for(service, scan, seconds)
    ratio = {
        f"{name}_ratio": round(beside.facts()[name] / alone.facts()[name], 2)
        for name in ("p50_s", "p99_s")
    }
    line = {"normal": f"beside {count} slow uploads", **beside.facts(), **ratio}
    print(json.dumps({**line, "slow_ended": dict(ended)}), flush=True)


def count_closed(connections: Sequence[socket.socket]) -> int:
    """How many the service has closed."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        return len(selector.select(0))


def measure_silent(service: Service, count: int) -> None:
    """`/livez` and `/readyz`, each on a new connection, beside connections that say nothing."""
    raise_open_files_limit()
    livez, readyz = Seen(), Seen()
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service)) for _ in range(count)]
        began, settled = time.monotonic(), count
        while time.monotonic() - began < SILENT_S:
            for path, seen in (("/livez", livez), ("/readyz", readyz)):
                with client_of(service) as client:
                    ask(client, "GET", path, seen)
            if time.monotonic() - began < SETTLED_S:
                settled = count - count_closed(connections)
            time.sleep(PROBE_S)
        facts = {
            "silent": count,
            f"open_after_{SETTLED_S:.0f}_s": settled,
            f"open_after_{SILENT_S:.0f}_s": count - count_closed(connections),
            "livez": livez.facts(),
            "readyz": readyz.facts(),
        }
    print(json.dumps(facts), flush=True)


def places_taken(client: httpx.Client) -> int:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("normbank_queue_depth "):
            return int(float(line.split()[1]))
    raise SystemExit("no normbank_queue_depth in /metrics")


def free_after(
    client: httpx.Client, connections: Sequence[socket.socket], places: int, delay_s: float
) -> float:
    """Close connections so long after their scans have begun; seconds until no place is taken."""
    deadline = time.monotonic() + GIVE_UP_S
    while places_taken(client) < places:
        if time.monotonic() > deadline:
            raise SystemExit("the scans did not begin")
        time.sleep(LOOK_S)
    time.sleep(delay_s)
    for connection in connections:
        connection.close()
    began = time.monotonic()
    while places_taken(client) and time.monotonic() - began < GIVE_UP_S:
        time.sleep(LOOK_S)
    return time.monotonic() - began


def measure_leaving(service: Service, scan: bytes, count: int) -> None:
    """Clients that leave, one by one and then as many at once as there are places."""
    body = form_of(scan)
    with client_of(service) as client:
        one_by_one = []
        for number in range(count):
            connection = begin_upload(service, body, len(body))
            one_by_one.append(free_after(client, [connection], 1, 0.1 * number))
        together = [begin_upload(service, body, len(body)) for _ in range(count)]
        places = min(count, Settings().queue_scans + 1)
        all_s = free_after(client, together, places, 0.0)
    facts = {
        "leaving": count,
        "free_max_s": round(max(one_by_one), 3),
        "free_median_s": round(float(np.median(one_by_one)), 3),
        "at_once": places,
        "all_free_s": round(all_s, 3),
    }
    print(json.dumps(facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--slow", type=int, default=50)
    parser.add_argument("--silent", type=int, default=1500)
    parser.add_argument("--leaving", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running() as service:
        scan = drawn_scan(Path(folder)).read_bytes()
        measure_slow(service, scan, options.seconds, options.slow)
        measure_silent(service, options.silent)
        measure_leaving(service, scan, options.leaving)


if __name__ == "__main__":
    main()
