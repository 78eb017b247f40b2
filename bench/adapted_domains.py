"""Domains with adapters, a scan each, against one such domain as often.

    python bench/adapted_domains.py [--domains 64] [--slices 140]

Every domain has filters of its own. In turn: a scan of the next domain, and a
scan of the first one; in the first round nothing of a domain but the first is
ready, in the second all are. Prints one JSON line; ratios are medians over
the domains, `whole` is the sum of one round over the sum of the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time

import numpy as np
import torch

from experiments.kit.environment import environment
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import Predictor, choose_device
from models.state import State

SLICE = (152, 184)  # what is seen of an ordinary head


def adapted(state: State, size: int, seed: int) -> State:
    """The same state with adapters that nobody else has."""
    random = torch.Generator().manual_seed(seed)
    return State(
        state.rows, state.backbone, None, (0.01 * torch.randn(size, generator=random)).bfloat16()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=64)
    parser.add_argument("--slices", type=int, default=140)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    backbone, device = load_backbone(), choose_device("cpu")
    predictor = Predictor(backbone, device=device, precision=None, backend="auto")
    start = read_states(SHIPPED, backbone)["sim-t1w-3t"]
    size = backbone.spec.adapter_size
    rows = [predictor.bank.add(adapted(start, size, seed)) for seed in range(options.domains)]
    slices = np.random.default_rng(0).random((options.slices, *SLICE), np.float32)

    def scan(row: int) -> float:
        began = time.perf_counter()
        predictor.prepare(row)
        predictor.classes(slices, np.full(len(slices), row), consecutive=True)
        return time.perf_counter() - began

    scan(rows[0])
    timings: dict[str, object] = {}
    for name in ("first_time", "again"):
        pairs = [(scan(row), scan(rows[0])) for row in rows[1:]]
        turns, same = zip(*pairs, strict=True)
        timings[name] = {
            "over_one": round(statistics.median(a / b for a, b in pairs), 4),
            "whole": round(sum(turns) / sum(same), 4),
            "scan_s": round(statistics.median(turns), 3),
        }
    timings["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    about = {"domains": options.domains, "slices": options.slices, "backend": predictor.backend}
    print(json.dumps({**timings, **about, **environment(device, predictor.precision)}))


if __name__ == "__main__":
    main()
