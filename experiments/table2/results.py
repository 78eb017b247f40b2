"""What the study has measured, and what the paper prints, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.kit.adaptation import History
from experiments.kit.scoring import ScanScore
from experiments.kit.training import TrainedNetwork
from experiments.table2.design import OLD, OWN
from models.state import State

SHARED, BN = "N123", "Nbn123"
ALL = "shared"
"""The one state of a network that shares everything."""
FINE_TUNED = {"D4": "N123→4", "D5": "N123→5"}
ADAPTED = {"D4": "Nbn123,k*→4", "D5": "Nbn123,k*→5"}
MATCHED = "N123, HistEq"


class TableRow(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    network : as the paper writes it, `bn` for its superscript, `k*` for the closest domain
    domain : whose test scans are segmented
    state : which batch norm is used; `shared` where there is only one
    """

    network: str
    domain: str
    state: str


def read_paper() -> pd.DataFrame:
    """Table 2 of Karani et al., MICCAI 2018: mean Dice on their test volumes, in their order.

    Facts to compare with, no target: their scans are real, ours are simulated.
    It prints 0.81 for N5, whose seven structures give 0.807.

    Returns
    -------
    a column per structure, and `mean`; indexed by the fields of `TableRow`
    """
    return pd.read_csv(Path(__file__).with_name("paper.csv"), index_col=list(TableRow._fields))


@dataclass(frozen=True)
class Retention:
    """The old domains after a new one has come in.

    Attributes
    ----------
    scores : per old domain, after
    hashes_before, hashes_after : of the backbone and of every old state
    """

    scores: Mapping[str, Sequence[ScanScore]]
    hashes_before: Mapping[str, str]
    hashes_after: Mapping[str, str]


@dataclass
class Results:
    """All that the study has measured.

    Attributes
    ----------
    scores : of every row's test scans: the paper's rows, and more of ours
    networks : by name
    probes : per new domain, mean Dice of every stored state on the training half
    adapted : per new domain and mode, the state and its validation points
    retention : per new domain
    curve : labelled cases -> scores on the first new domain
    """

    scores: dict[TableRow, list[ScanScore]] = field(default_factory=dict)
    networks: dict[str, TrainedNetwork] = field(default_factory=dict)
    probes: dict[str, dict[str, float]] = field(default_factory=dict)
    adapted: dict[tuple[str, str], tuple[State, History]] = field(default_factory=dict)
    retention: dict[str, Retention] = field(default_factory=dict)
    curve: dict[int, list[ScanScore]] = field(default_factory=dict)

    def closest(self, domain: str) -> str:
        """The old domain whose state did best on the labelled training half."""
        dice = self.probes[domain]
        return max(sorted(dice), key=lambda old: dice[old])

    def truly_closest(self, domain: str) -> str:
        """The old domain whose state does best on the whole test set."""
        return max(OLD, key=lambda old: self.mean(TableRow(BN, domain, bn(old))))

    def mean(self, row: TableRow) -> float:
        """Mean Dice over scans and structures."""
        return float(np.mean([score.mean for score in self.scores[row]]))

    def unchanged_scans(self, domain: str, old: str) -> dict[str, bool]:
        """Per test scan of an old domain: whether Dice and answer are as they were."""
        before = self.scores[TableRow(BN, old, bn(old))]
        after = self.retention[domain].scores[old]
        return {
            b.scan: (b.dice, b.answer) == (a.dice, a.answer)
            for b, a in zip(before, after, strict=True)
        }

    def differences(self, domain: str) -> list[str]:
        """Everything about the old domains that the new one has changed; empty: nothing."""
        kept = self.retention[domain]
        names = [name for name, sha in kept.hashes_before.items() if kept.hashes_after[name] != sha]
        for old in kept.scores:
            names += [scan for scan, same in self.unchanged_scans(domain, old).items() if not same]
        return names


def bn(domain: str) -> str:
    """The name of a domain's own batch norm."""
    return f"bn{domain[1]}"


def dedicated(domain: str) -> str:
    """The name of a domain's dedicated network."""
    return f"N{domain[1]}"


def adapted_row(domain: str, mode: str) -> TableRow:
    """The adapted state on its own domain: the paper's name for its mode, and one of ours."""
    network = ADAPTED[domain] + (", own mode" if mode == OWN else "")
    return TableRow(network, domain, bn(domain))
