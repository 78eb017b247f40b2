"""The design of the study: who is scanned where, and in which sizes it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np

from experiments.kit.recipes import Recipe, Training
from experiments.kit.simulation import PlannedScan
from models.spec import BackboneSpec

PAPER, OWN = "paper", "own"
MODES = (PAPER, OWN)
"""Of adapting: as in the paper, and normbank's own."""

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


def plan_cohort(counts: Counts, anatomies: Anatomies, seed: int) -> tuple[PlannedScan, ...]:
    """Every scan of the study.

    Parameters
    ----------
    seed : another one gives other scans of the same heads

    Raises
    ------
    ValueError
        If an anatomy were on two sides.
    """
    planned = tuple(
        _plan(domain, part, number, anatomies, seed)
        for domain in DOMAINS
        for part in PARTS
        for number in range(counts.of(domain, part))
    )
    check_sides(planned)
    return planned


def _plan(domain: str, part: str, number: int, anatomies: Anatomies, seed: int) -> PlannedScan:
    heads = anatomies.of(part)
    start = list(DOMAINS).index(domain) + PARTS.index(part)
    key = (seed, list(DOMAINS).index(domain), PARTS.index(part), number)
    scan_seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    head = heads[(start + number) % len(heads)]
    return PlannedScan(domain, DOMAINS[domain], part, number, head, scan_seed)


def check_sides(planned: Iterable[PlannedScan]) -> None:
    """Refuse a cohort in which training, validation and test share a head.

    Raises
    ------
    ValueError
    """
    sides: dict[str, set[str]] = {}
    for scan in planned:
        sides.setdefault(scan.part.removeprefix("few-"), set()).add(scan.anatomy)
    for first, second in combinations(sorted(sides), 2):
        shared = sides[first] & sides[second]
        if shared:
            heads = ", ".join(sorted(shared))
            raise ValueError(f"on both sides, {first} and {second}: {heads}")


CLASSES = (
    "background",
    "cerebellum-gm",
    "cerebellum-wm",
    "cerebral-gm",
    "cerebral-wm",
    "thalamus",
    "hippocampus",
    "amygdala",
    "ventricles",
    "caudate",
    "putamen",
    "pallidum",
    "ventral-dc",
    "csf",
    "brain-stem",
)
"""The paper's classes: all ventricles are one (with the temporal horns, which it left out)."""


@dataclass(frozen=True)
class Adapting:
    """How a network or a state is brought to a new domain.

    Attributes
    ----------
    paper : batch norm alone, 1e-3, no augmentation, as in the paper
    own : normbank's own mode; its defaults, refitted on all cases in the end
    whole : how all of a network is fine-tuned
    curve : numbers of labelled cases; the greatest is twice `Counts.few`
    """

    paper: Recipe
    whole: Training
    own: Recipe = field(default_factory=Recipe)
    curve: tuple[int, ...] = (1, 2, 4, 8)

    def recipe(self, mode: str, seed: int) -> Recipe:
        """The recipe of one of `MODES`."""
        return replace({PAPER: self.paper, OWN: self.own}[mode], seed=seed)


@dataclass(frozen=True)
class Preset:
    """One size of the whole study.

    Attributes
    ----------
    training, shared_steps : of a dedicated network; steps of one for three
        domains, thrice as many where it shall see each of them as often
    adapting : how a network or a state is brought to a new domain
    drawn : heads are drawn by code instead of read from label maps
    spacing_mm, window : the network's space, (left-right, posterior-anterior,
        inferior-superior) voxels
    down, up : widths of the network
    """

    name: str
    spacing_mm: float
    window: tuple[int, int, int]
    down: tuple[int, ...]
    up: tuple[int, ...]
    counts: Counts
    training: Training
    shared_steps: int
    adapting: Adapting
    drawn: bool = False
    seed: int = 0

    @property
    def anatomies(self) -> Anatomies:
        return DRAWN if self.drawn else LABEL_MAPS

    def spec(self, name: str) -> BackboneSpec:
        """A network of this size."""
        return BackboneSpec(
            name,
            CLASSES,
            self.down,
            self.up,
            eps=1e-3,
            momentum=0.05,
            spacing_mm=self.spacing_mm,
            window=self.window,
        )

    def data_settings(self) -> dict[str, Any]:
        """What the scans depend on."""
        names = ("spacing_mm", "window", "counts", "drawn", "seed")
        return {name: value for name, value in asdict(self).items() if name in names}

    def network_settings(self) -> dict[str, Any]:
        """What a network depends on."""
        return {**self.data_settings(), "down": self.down, "up": self.up}


_PAPER_RECIPE = Recipe(learning_rate=1e-3, augment=False, head=False, adapters=False)

SMOKE = Preset(
    "smoke",
    spacing_mm=4.0,
    window=(40, 48, 32),
    down=(6, 8, 8, 8),
    up=(8, 8, 6),
    counts=Counts(training=2, dedicated=2, validation=1, test=2, few=2),
    training=Training(
        12, learning_rate=1e-2, warm_up=0, validate_every=6, slice_stride=6, crop=(32, 32)
    ),
    shared_steps=12,
    adapting=Adapting(
        paper=replace(_PAPER_RECIPE, steps=4, validate_every=2),
        own=Recipe(steps=4, validate_every=2),
        whole=Training(4, learning_rate=1e-3, warm_up=0, validate_every=2, slice_stride=6),
        curve=(1, 2, 4),
    ),
    drawn=True,
)

CPU = Preset(
    "cpu",
    spacing_mm=2.0,
    window=(88, 104, 72),
    down=(16, 32, 64, 128),
    up=(64, 32, 16),
    counts=Counts(),
    training=Training(1500, learning_rate=5e-3, validate_every=250, crop=(64, 72)),
    shared_steps=4500,
    adapting=Adapting(
        paper=replace(_PAPER_RECIPE, steps=300, batch_size=8, validate_every=50, patience=8),
        own=Recipe(steps=600, validate_every=100, patience=6),
        whole=Training(200, learning_rate=3e-4, warm_up=0, validate_every=50, slice_stride=2),
    ),
)

FULL = Preset(
    "full",
    spacing_mm=1.0,
    window=(192, 224, 160),
    down=(32, 64, 128, 256),
    up=(128, 64, 32),
    counts=Counts(),
    training=Training(3000, batch_size=8, warm_up=100, validate_every=1000, slice_stride=8),
    shared_steps=9000,
    adapting=Adapting(
        paper=replace(_PAPER_RECIPE, steps=1000, batch_size=16, validate_every=100, patience=10),
        whole=Training(600, batch_size=16, learning_rate=3e-4, warm_up=0, validate_every=60),
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({p.name: p for p in (SMOKE, CPU, FULL)})
