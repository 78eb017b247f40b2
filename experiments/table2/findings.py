"""What the study finds, before it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.kit.adaptation import OWN, Adapted
from experiments.kit.scoring import ScanScore
from experiments.kit.training import Learned
from experiments.table2.cohort import OLD
from experiments.table2.paper import ADAPTED, Row

SHARED, BN = "N123", "Nbn123"
ALL = "shared"
"""The one state of a network that shares everything."""


@dataclass(frozen=True)
class Kept:
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
class Findings:
    """All that the study has found.

    Attributes
    ----------
    scores : of every row's test scans: the paper's rows, and more of ours
    networks : by name
    probes : per new domain, mean Dice of every stored state on the training half
    adapted : per new domain and mode
    kept : per new domain
    curve : labelled cases -> scores on the first new domain
    """

    scores: dict[Row, list[ScanScore]] = field(default_factory=dict)
    networks: dict[str, Learned] = field(default_factory=dict)
    probes: dict[str, dict[str, float]] = field(default_factory=dict)
    adapted: dict[tuple[str, str], Adapted] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    curve: dict[int, list[ScanScore]] = field(default_factory=dict)

    def closest(self, domain: str) -> str:
        """The old domain whose state did best on the labelled training half."""
        probed = self.probes[domain]
        return max(sorted(probed), key=lambda old: probed[old])

    def truly_closest(self, domain: str) -> str:
        """The old domain whose state does best on the whole test set."""
        return max(OLD, key=lambda old: self.mean(Row(BN, domain, bn(old))))

    def mean(self, row: Row) -> float:
        """Mean Dice over scans and structures."""
        return float(np.mean([score.mean for score in self.scores[row]]))

    def differences(self, domain: str) -> list[str]:
        """Everything about the old domains that the new one has changed; empty: nothing."""
        kept = self.kept[domain]
        names = [name for name, sha in kept.hashes_before.items() if kept.hashes_after[name] != sha]
        for old, after in kept.scores.items():
            before = self.scores[Row(BN, old, bn(old))]
            pairs = zip(before, after, strict=True)
            names += [b.scan for b, a in pairs if (b.dice, b.answer) != (a.dice, a.answer)]
        return names


def bn(domain: str) -> str:
    """The name of a domain's own batch norm."""
    return f"bn{domain[1]}"


def dedicated(domain: str) -> str:
    """The name of a domain's dedicated network."""
    return f"N{domain[1]}"


def adapted_name(domain: str, mode: str) -> str:
    """The paper's name for the paper's mode, and one of ours."""
    return ADAPTED[domain] + (", own mode" if mode == OWN else "")


def adapted_row(domain: str, mode: str) -> Row:
    """The adapted state on its own domain."""
    return Row(adapted_name(domain, mode), domain, bn(domain))
