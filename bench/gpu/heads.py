"""Stage 4, whole heads: from a file to labels through the service's engine, some at once."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from app.engine.engine import Engine
from bench.gpu.scene import Scene
from normbank.config import Settings
from normbank.entities import DomainState
from normbank.imaging.nifti import read_scan, write_labels
from normbank.imaging.scan import Limits


def run(scene: Scene) -> None:
    """Every concurrency after another, each domain's turn; seconds by part."""
    settings = Settings(
        device=str(scene.device),
        queue_scans=64,
        older_backbone_dirs=(),
        backend="eager" if scene.smoke else "auto",
    )
    engine, limits = Engine(settings), Limits.of(settings)
    began = time.perf_counter()
    engine.start()
    facts: dict[str, Any] = {"start_s": round(time.perf_counter() - began, 2)}
    _, states = scene.backbone()
    packs = {state.sha256: state.to_bytes() for state in states.values()}
    slots = [
        engine.ensure(
            DomainState(name, 1, state.sha256, state.backbone, None, {}, {}, None, None,
                        datetime.now(UTC)), packs.__getitem__,
        )
        for name, state in states.items()
    ]  # fmt: skip
    scans = [row.scan for row in scene.cases()]

    def segment(number: int) -> dict[str, float]:
        path, timings = scans[number % len(scans)], {}
        started = time.perf_counter()
        scan = read_scan(path, limits)
        timings["read"] = time.perf_counter() - started
        with engine.admit():
            segmented_scan = engine.segment(scan, slots[number % len(slots)])
        writing = time.perf_counter()
        write_labels(segmented_scan.ids, scan)
        ended = time.perf_counter()
        return {
            **timings,
            **segmented_scan.timings_s,
            "write": ended - writing,
            "total": ended - started,
        }

    if not scene.smoke:
        segment(0)  # the first one warms more than the network
    for clients in (1, 2) if scene.smoke else (1, 8, 32):
        if scene.left_s < 5:
            break
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            runs = list(pool.map(segment, range(1 if scene.smoke else max(8, 2 * clients))))
        wall = time.perf_counter() - began
        facts[f"at_{clients}"] = {
            "scans": len(runs),
            "scans_per_minute": round(60 * len(runs) / wall, 1),
            "median_s": {
                part: round(statistics.median(timings[part] for timings in runs), 4)
                for part in runs[0]
            },
        }
        scene.keep("heads", facts)
    facts["engine"] = asdict(engine.describe())
    engine.stop()
    scene.keep("heads", facts, done=True)
