"""Which recipe the next backbone gets: one run per variant, every score a row of a CSV.

    python -m experiments.recipe.study --cache FOLDER --out scans.csv VARIANT…

FOLDER is what `experiments.recipe.cases` made; `experiments.recipe.report` turns
the CSV into the table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from experiments.recipe.cases import Scans
from experiments.recipe.learn import Learnt, Variant, learn
from experiments.recipe.score import judge

COLUMNS = (
    *("variant", "seed", "steps", "batch_size", "learning_rate", "inputs", "parameters"),
    *("train_cpu_s", "weights", "way", "scans", "state", "mean_dice"),
)
T1W = ("sim-t1w-3t", "sim-t1w-1p5t")
JUDGED = 10  # simulated scans: both heads in every family
REFERENCE = Variant("reference")
SHORT = Variant("short", steps=1200, learning_rate=5e-3)
"""Far from converged: tells in two minutes what learns quickly, not what learns well."""
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "seed 1": {"seed": 1},
    "inputs 3": {"inputs": 3},
    "inputs 5": {"inputs": 5},
    "planes": {"planes": ("axial", "coronal")},
    "real shared": {"real": "shared"},
    "real own": {"real": "own"},
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 2e-3": {"learning_rate": 2e-3},
    "rate 5e-3": {"learning_rate": 5e-3},
    "rate 1e-2": {"learning_rate": 1e-2},
    "rate 2e-2": {"learning_rate": 2e-2},
}


def changed(base: Variant) -> Iterator[Variant]:
    """A variant and all that differ from it in one thing; as many slices, unless longer."""
    yield base
    for name, change in CHANGES.items():
        yield replace(base, name=f"{base.name}, {name}", **change)
    yield replace(base, name=f"{base.name}, batch 4", batch_size=4, steps=base.steps * 2)
    yield replace(base, name=f"{base.name}, batch 16", batch_size=16, steps=base.steps // 2)
    yield replace(base, name=f"{base.name}, length x2", steps=base.steps * 2)


VARIANTS = {variant.name: variant for base in (REFERENCE, SHORT) for variant in changed(base)}


def rows(variant: Variant, learnt: Learnt, cache: Path) -> Iterator[tuple[object, ...]]:
    """Every score of a variant; a scan is named by its group alone."""
    states = [*T1W, "cc0"] if variant.real == "own" else list(T1W)
    for weights, trained in (("last", learnt.last), ("averaged", learnt.averaged)):
        count = sum(p.numel() for p in trained.backbone.network.parameters())
        facts = (
            *(variant.name, variant.seed, variant.steps, variant.batch_size),
            *(variant.learning_rate, variant.inputs, count, f"{learnt.seconds:.0f}", weights),
        )
        for name in ("valid", "real"):
            scans = Scans.load(cache, name).first(JUDGED)
            for way, group, state, score in judge(trained, variant.planes, scans, states):
                yield *facts, way, group, state, f"{score:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("variants", nargs="+", choices=list(VARIANTS))
    options = parser.parse_args()
    for name in options.variants:
        variant = VARIANTS[name]
        learnt = learn(
            variant, Scans.load(options.cache, "train"), Scans.load(options.cache, "cc0")
        )
        found = list(rows(variant, learnt, options.cache))
        lock = options.out.with_name(f"{options.out.name}.lock")
        # Other variants may run beside.
        with FileLock(lock), options.out.open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            writer.writerows(found)


if __name__ == "__main__":
    main()
