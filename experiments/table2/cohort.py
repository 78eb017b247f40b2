"""Who is scanned where: five simulated domains, no anatomy on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

OLD, NEW = ("D1", "D2", "D3"), ("D4", "D5")
DOMAINS: Mapping[str, str] = MappingProxyType(
    {
        "D1": "d1-t1w-3t",
        "D2": "d2-t2w-3t",
        "D3": "d3-t1w-1p5t",
        "D4": "d4-t1w-3t-raw",
        "D5": "d5-t2w-3t-raw",
    }
)
"""The paper's names and the simulated scanner of each."""

TRAINING, VALIDATION, TEST = "training", "validation", "test"
FEW_TRAINING, FEW_VALIDATION = "few-training", "few-validation"
PARTS = (TRAINING, VALIDATION, TEST, FEW_TRAINING, FEW_VALIDATION)


@dataclass(frozen=True)
class Anatomies:
    """Names of heads by what they may be used for; nobody has two uses."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, part: str) -> tuple[str, ...]:
        return {
            TRAINING: self.training,
            FEW_TRAINING: self.training,
            VALIDATION: self.validation,
            FEW_VALIDATION: self.validation,
            TEST: self.test,
        }[part]


def _heads(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"head_{number:02d}" for number in range(first, last + 1))


LABEL_MAPS = Anatomies(_heads(1, 8), _heads(9, 10), _heads(11, 14))
DRAWN = Anatomies(_heads(1, 4), _heads(9, 10), _heads(11, 12))


@dataclass(frozen=True)
class Counts:
    """Scans per domain.

    Attributes
    ----------
    training : of an old domain
    dedicated : of a new domain, for the network that it has to itself
    validation : for choosing a network
    test : of every domain
    few : labelled cases of a new domain in each half, at most
    """

    training: int = 30
    dedicated: int = 20
    validation: int = 4
    test: int = 20
    few: int = 4

    def of(self, domain: str, part: str) -> int:
        """How many scans a part of a domain has."""
        if part in (FEW_TRAINING, FEW_VALIDATION):
            return self.few if domain in NEW else 0
        if part == TRAINING:
            return self.dedicated if domain in NEW else self.training
        return self.validation if part == VALIDATION else self.test


@dataclass(frozen=True)
class ScanPlan:
    """One scan to be simulated.

    Attributes
    ----------
    anatomy : name of the head
    seed : of its deformation and of its scan
    """

    domain: str
    part: str
    number: int
    anatomy: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.domain}-{self.part}-{self.number:02d}"


def plan_cohort(counts: Counts, anatomies: Anatomies, seed: int) -> tuple[ScanPlan, ...]:
    """Every scan of the study.

    Parameters
    ----------
    seed : another one gives other scans of the same heads

    Raises
    ------
    ValueError
        If an anatomy were on two sides.
    """
    plans = tuple(
        _plan(domain, part, number, anatomies, seed)
        for domain in DOMAINS
        for part in PARTS
        for number in range(counts.of(domain, part))
    )
    check_sides(plans)
    return plans


def _plan(domain: str, part: str, number: int, anatomies: Anatomies, seed: int) -> ScanPlan:
    heads = anatomies.of(part)
    start = list(DOMAINS).index(domain) + PARTS.index(part)
    key = (seed, list(DOMAINS).index(domain), PARTS.index(part), number)
    drawn = int(np.random.SeedSequence(key).generate_state(1)[0])
    return ScanPlan(domain, part, number, heads[(start + number) % len(heads)], drawn)


def check_sides(plans: Iterable[ScanPlan]) -> None:
    """Refuse a cohort in which training, validation and test share a head.

    Raises
    ------
    ValueError
    """
    sides: dict[str, set[str]] = {}
    for plan in plans:
        sides.setdefault(plan.part.removeprefix("few-"), set()).add(plan.anatomy)
    names = sorted(sides)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            both = sides[one] & sides[other]
            if both:
                raise ValueError(f"on both sides, {one} and {other}: {', '.join(sorted(both))}")


def of_part(plans: Sequence[ScanPlan], domain: str, part: str) -> tuple[ScanPlan, ...]:
    """The plans of one part of one domain, in order."""
    return tuple(plan for plan in plans if plan.domain == domain and plan.part == part)
