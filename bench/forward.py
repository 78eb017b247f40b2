"""What a domain costs: mixed against single-domain batches, 1 against 1,000 domains.

    python bench/forward.py [--device auto] [--domains 1000] [--pairs 11]

Prints one JSON line. Times are medians of interleaved pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from models.backbone import SHIPPED, load_backbone
from models.packs import read_pack
from models.predict import Predictor, choose_device, choose_precision
from models.state import State


def neighbours(state: State, count: int) -> list[State]:
    """States a little beside a given one, all different."""
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        change = 1 + 0.05 * torch.randn(state.rows.shape, generator=random)
        rows = state.rows * change
        rows[3] = rows[3].abs()
        found.append(State(rows, state.backbone))
    return found


def interleaved(
    pairs: int, first: Callable[[], object], second: Callable[[], object]
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios first / second."""
    times = []
    for number in range(pairs + 1):
        row = []
        for run in (first, second):
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            row.append(time.perf_counter() - started)
        if number:  # the first pair warms up
            times.append(row)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return medians[0], medians[1], statistics.median(a / b for a, b in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=11)
    options = parser.parse_args()
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    torch.set_num_threads(os.cpu_count() or 1)
    backbone = load_backbone()
    pack = read_pack((SHIPPED / "states" / "sim-t1w-3t.safetensors").read_bytes())
    state = State.from_bytes(pack.tensors, backbone=pack.backbone)
    alone, full = (Predictor(backbone, device=device, precision=precision) for _ in range(2))
    alone.bank.add(state)
    full.bank.add(state)
    for other in neighbours(state, options.domains - 1):
        full.bank.add(other)
    batch = alone.batch_slices
    random = np.random.default_rng(0)
    scan = random.random((batch, *backbone.spec.slice_shape), np.float32)
    single = np.zeros(batch, np.int64)
    mixed = random.integers(0, options.domains, batch)
    mixed[0] = 0
    difference = max(
        float((full.logits(scan, mixed)[n] - full.logits(scan, np.full(batch, d))[n]).abs().max())
        for n, d in enumerate(mixed)
    )
    many, one, growth = interleaved(
        options.pairs, lambda: full.logits(scan, single), lambda: alone.logits(scan, single)
    )
    _, _, mixing = interleaved(
        options.pairs, lambda: full.logits(scan, mixed), lambda: full.logits(scan, single)
    )
    print(
        json.dumps(
            {
                "mixed_max_difference": difference,
                "mixed_over_single": round(mixing, 4),
                "domains": len(full.bank),
                "bytes_per_domain": full.bank.bytes_per_domain,
                "forward_s_1": round(one, 5),
                "forward_s_many": round(many, 5),
                "time_many_over_1": round(growth, 4),
                "batch_slices": batch,
                "slice": list(backbone.spec.slice_shape),
                "device": str(device),
                "precision": str(precision).removeprefix("torch."),
                "torch": torch.__version__,
                "backbone": backbone.sha256,
            }
        )
    )


if __name__ == "__main__":
    main()
