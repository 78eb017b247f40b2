"""The table of the recipe, from the scores of every scan.

python -m experiments.recipe.report docs/results/recipe/scans.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

REAL = ["oasis", "georgetown"]
RUN = ["variant", "way"]
SIMULATED = "simulated"


def scores(scans: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of every run and way to answer, real scanners by their best state.

    Parameters
    ----------
    scans : a row for every scan, state, way and kind of weights

    Returns
    -------
    pandas.DataFrame
        By variant and way, in the order of the runs: `simulated`, the real
        scanners, their `mean`, and `averaged`, that mean with averaged weights.
    """
    group = scans["scans"].where(scans["scans"].isin(REAL), SIMULATED)
    state = scans["state"].where(group != SIMULATED, "own")
    by_state = scans.assign(group=group, state=state).groupby(
        [*RUN, "weights", "group", "state"], sort=False
    )["mean_dice"]
    best = by_state.mean().groupby([*RUN, "weights", "group"], sort=False).max().unstack()
    best["mean"] = best[[SIMULATED, *REAL]].mean(axis=1)
    last, averaged = (best.xs(kind, level="weights") for kind in ("last", "averaged"))
    return last[[SIMULATED, *REAL, "mean"]].assign(averaged=averaged["mean"])


def table(scans: pd.DataFrame) -> str:
    """Markdown; a line for every run and way to answer."""
    facts = scans.groupby(RUN, sort=False).first()
    shown = pd.DataFrame(
        {
            "steps × slices": facts["steps"].astype(str) + " × " + facts["batch_size"].astype(str),
            "rate": facts["learning_rate"].map("{:g}".format),
            "parameters": facts["parameters"].map("{:,}".format),
            "CPU s": facts["train_cpu_s"],
        }
    ).join(scores(scans).map("{:.4f}".format))
    shown = shown.reset_index().rename(columns={"way": "answered by"})
    return shown.to_markdown(index=False, disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path)
    options = parser.parse_args()
    print(table(pd.read_csv(options.scans)))


if __name__ == "__main__":
    main()
