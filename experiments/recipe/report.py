"""The table of the recipe, from the scores of every scan.

python -m experiments.recipe.report docs/results/recipe/scans.csv
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

REAL = ("oasis", "georgetown")
HEADER = (
    "| variant | answered by | weights | steps × slices | parameters | CPU s | simulated | "
    "oasis | georgetown | mean |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|"
)

Row = Mapping[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Mean Dice on simulated scans and on both real scanners, each by its best state."""
    simulated = [float(row["mean_dice"]) for row in rows if row["scans"] not in REAL]
    best = []
    for scanner in REAL:
        by_state = defaultdict(list)
        for row in rows:
            if row["scans"] == scanner:
                by_state[row["state"]].append(float(row["mean_dice"]))
        best.append(max(float(np.mean(found)) for found in by_state.values()))
    return float(np.mean(simulated)), best[0], best[1]


def table(rows: Sequence[Row]) -> str:
    """Markdown; a line per run, per way of answering and per kind of weights."""
    lines = defaultdict(list)
    for row in rows:
        lines[row["variant"], row["way"], row["weights"]].append(row)
    text = [HEADER]
    for (variant, way, weights), found in lines.items():
        first, (simulated, *real) = found[0], scores(found)
        text.append(
            f"| {variant} | {way} | {weights} | {first['steps']} × {first['batch_size']} | "
            f"{int(first['parameters']):,} | {first['train_cpu_s']} | {simulated:.4f} | "
            f"{real[0]:.4f} | {real[1]:.4f} | {np.mean((simulated, *real)):.4f} |"
        )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path)
    options = parser.parse_args()
    print(table(read(options.scans)))


if __name__ == "__main__":
    main()
