"""What DICOM and `auto` add to a request: the same volume in three ways, in turn.

    python bench/dicom.py SERIES [--pairs 9] [--domain sim-t1w-3t]

SERIES is a folder with the files of one MR series. Each round segments it as `.nii.gz` by a
named domain, as a zip that is answered by a SEG, and as `.nii.gz` by `auto`, at a `normbank up`
of its own. Prints one JSON line: medians, and the ratios of the rounds to the first way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from bench.chaos.service import running
from cli.client import zipped
from normbank.config import Settings
from normbank.dicom.series import open_series
from normbank.imaging.nifti import write_scan
from normbank.imaging.scan import Limits

TIMEOUT_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--domain", default="sim-t1w-3t")
    options = parser.parse_args()
    series = open_series(options.series, Limits.of(Settings()))
    nifti = write_scan(series.read())
    with zipped(series.files) as packed:
        archive = packed.read()
    with running() as service:
        headers = {"X-API-Key": service.key}

        def ask(scan: bytes, domain: str, accept: str) -> float:
            started = time.perf_counter()
            answer = httpx.post(
                f"{service.url}/segment",
                headers={**headers, "Accept": accept},
                data={"domain": domain},
                files={"scan": ("scan", scan)},
                timeout=TIMEOUT_S,
                trust_env=False,
            )
            answer.raise_for_status()
            return time.perf_counter() - started

        ways: dict[str, Callable[[], float]] = {
            "nifti": lambda: ask(nifti, options.domain, "application/gzip"),
            "dicom": lambda: ask(archive, options.domain, "application/dicom"),
            "auto": lambda: ask(nifti, "auto", "application/gzip"),
        }
        for way in ways.values():  # the first of each warms more than the network
            way()
        rounds = [{name: way() for name, way in ways.items()} for _ in range(options.pairs)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in ways}
    ratios = {
        name: statistics.median(one[name] / one["nifti"] for one in rounds)
        for name in ("dicom", "auto")
    }
    shown = {
        "pairs": len(rounds),
        **{f"{name}_s": round(value, 2) for name, value in medians.items()},
        **{f"{name}_over_nifti": round(value, 3) for name, value in ratios.items()},
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
