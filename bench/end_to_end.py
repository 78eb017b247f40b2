"""Scans through the running service: how long, where the time goes, how many at once.

    python bench/end_to_end.py SCAN [--concurrency 1,4] [--scans 4] [--url …] [--key …]

Needs a running service. `outside_network_s` is the answer's total without the
stage `network`, which holds the looks for the brain, the segmentation and the
waiting for other scans' batches. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cli.client import DEFAULT_URL
from cli.options import connect

DOMAINS = ("sim-t1w-3t", "sim-t1w-1p5t", "sim-flair-3t", "sim-pd-3t", "sim-t2w-3t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--concurrency", default="1,4")
    parser.add_argument("--scans", type=int, default=4, help="for each concurrency, at least")
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default="")
    parser.add_argument("--service-data", type=Path, default=None)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with connect(options.url, options.key, options.service_data) as client:

        def segment(number: int) -> tuple[float, dict[str, float]]:
            started = time.perf_counter()
            answer = client.segment(options.scan, DOMAINS[number % len(DOMAINS)])
            return time.perf_counter() - started, dict(answer["timings_s"])

        engine = client.get("/backbone")["engine"]
        segment(0)  # the first scan of a service warms more than the network
        for clients in map(int, options.concurrency.split(",")):
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                runs = list(pool.map(segment, range(max(options.scans, clients))))
            wall = time.perf_counter() - began
            took = [seconds for seconds, _ in runs]
            stages = {
                stage: round(statistics.median(t[stage] for _, t in runs), 3)
                for stage in runs[0][1]
            }
            outside = [t["total"] - t["network"] for _, t in runs]
            results[f"at_{clients}"] = {
                "scans": len(runs),
                "p50_s": round(float(np.percentile(took, 50)), 2),
                "p99_s": round(float(np.percentile(took, 99)), 2),
                "scans_per_minute": round(60 * len(runs) / wall, 2),
                "outside_network_s": round(statistics.median(outside), 2),
                "stages_s": stages,
            }
    shown = ("device", "precision", "backend", "batch_slices", "threads", "ms_per_slice")
    print(json.dumps({**results, **{name: engine[name] for name in shown}}))


if __name__ == "__main__":
    main()
