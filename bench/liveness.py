"""How fast `/livez` answers while the device works.

    python bench/liveness.py SCAN [--probes 300] [--url …] [--key …]

Needs a running service. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from cli.client import DEFAULT_URL
from cli.options import connect

PAUSE_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--domain", default="sim-t1w-3t")
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default="")
    parser.add_argument("--service-data", type=Path, default=None)
    options = parser.parse_args()
    scans, done = [], threading.Event()

    def segment() -> None:
        with connect(options.url, options.key, options.service_data) as client:
            while not done.is_set():
                scans.append(client.segment(options.scan, options.domain)["timings_s"]["total"])

    busy = threading.Thread(target=segment)
    busy.start()
    time.sleep(1.0)
    took: list[float] = []
    with httpx.Client(trust_env=False) as client:
        while len(took) < options.probes or not scans:
            started = time.perf_counter()
            client.get(f"{options.url}/livez").raise_for_status()
            took.append(time.perf_counter() - started)
            time.sleep(PAUSE_S)
    done.set()
    busy.join()
    milliseconds = 1000 * np.array(took)
    p50, p99 = np.percentile(milliseconds, [50, 99])
    print(
        json.dumps(
            {
                "probes": len(took),
                "p50_ms": round(float(p50), 1),
                "p99_ms": round(float(p99), 1),
                "max_ms": round(float(milliseconds.max()), 1),
                "scans": len(scans),
                "scan_s": round(float(np.median(scans)), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
