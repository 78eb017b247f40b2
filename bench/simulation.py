"""What a simulated head of a training costs one process.

    python bench/simulation.py LABELMAPS [--heads 25]

Heads and families of scanners take turns, as in the training of a release;
the label maps are read before. CPU seconds, everything on one core, and where
they go. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from experiments.kit.environment import environment
from models.cases import LabelledSlices
from models.spec import BackboneSpec
from normbank.anatomy import STRUCTURES
from training.families import FAMILIES
from training.heads import label_maps
from training.release import SimulatedCases

STAGES = {
    "find the brain": ("heads.py", "_brain_box"),
    "deform": ("deform.py", "of"),
    "tissues": ("acquisition.py", "_tissue_signal"),
    "blur and sample": ("acquisition.py", "_sampled"),
    "noise": ("noise.py", "polar_noise"),
    "strip and deface": ("acquisition.py", "_leave_out"),
    "image to network": ("geometry.py", "to_network"),
    "labels to network": ("geometry.py", "labels_to_network"),
    "percentile": ("intensity.py", "divide_by_percentile"),
}
"""Where each stage is: the end of a file's name, and a function."""


def timed(make: Callable[[int], LabelledSlices], heads: int) -> tuple[list[float], int]:
    """CPU seconds of each head, and slices of one."""
    seconds, slices = [], 0
    for number in range(heads):
        began = time.process_time()
        slices = len(make(number).images)
        seconds.append(time.process_time() - began)
    return seconds, slices


def by_stage(make: Callable[[int], LabelledSlices], heads: int) -> dict[str, float]:
    """CPU seconds of a head in each stage, on average."""
    profile = cProfile.Profile(time.process_time)
    for number in range(heads):
        profile.runcall(make, number)
    spent = dict.fromkeys(STAGES, 0.0)
    every = 0.0
    for (file, _, function), (*_, own_seconds, total, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        every += own_seconds
        for name, (end, stage_function) in STAGES.items():
            if file.endswith(end) and function == stage_function:
                spent[name] += total
    spent["deform"] -= spent["find the brain"]  # which deforms too
    spent["rest"] = every - sum(spent.values())
    return {name: round(seconds / heads, 3) for name, seconds in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labelmaps", type=Path)
    parser.add_argument("--heads", type=int, default=5 * len(FAMILIES))
    options = parser.parse_args()
    maps = label_maps(options.labelmaps)
    make = SimulatedCases(maps, BackboneSpec("bench", STRUCTURES), seed=0)
    for number in range(0, options.heads, len(FAMILIES)):  # a round of families shares a map
        make(number)
    seconds, slices = timed(make, options.heads)
    print(
        json.dumps(
            {
                "slices_per_s": round(slices * len(seconds) / sum(seconds), 1),
                "s_per_head_mean": round(statistics.mean(seconds), 3),
                "s_per_head_median": round(statistics.median(seconds), 3),
                "s_per_head_min_max": [round(min(seconds), 3), round(max(seconds), 3)],
                "s_by_stage": by_stage(make, options.heads),
                "heads": options.heads,
                "slices_per_head": slices,
                **environment(torch.device("cpu"), torch.float32),
            }
        )
    )


if __name__ == "__main__":
    main()
