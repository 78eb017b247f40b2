"""The sizes in which the study can be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from experiments.kit.adaptation import OWN, PAPER, Mode
from experiments.table2.cohort import DRAWN, LABEL_MAPS, Anatomies, Counts
from models.adapt import Tuning
from models.spec import BackboneSpec

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
class Learning:
    """How networks are trained from scratch.

    Attributes
    ----------
    steps, shared_steps : of a dedicated network; of one for three domains,
        thrice as many where it shall see each of them as often
    warm_up : steps over which the learning rate rises
    look_every : steps between two looks at the validation scans
    stride : a look sees every n-th of their slices
    crop : rows and columns of the random parts that are learnt from; None: whole slices
    """

    steps: int
    shared_steps: int
    batch: int = 4
    rate: float = 2e-3
    warm_up: int = 30
    look_every: int = 100
    stride: int = 4
    crop: tuple[int, int] | None = None


@dataclass(frozen=True)
class Adapting:
    """How a network or a state is brought to a new domain.

    Attributes
    ----------
    paper : batch norm alone, 1e-3, no augmentation, as in the paper
    own : normbank's own mode; its defaults
    whole : how all of a network is tuned
    curve : numbers of labelled cases; the greatest is twice `Counts.few`
    """

    paper: Tuning
    whole: Learning
    own: Tuning = field(default_factory=Tuning)
    curve: tuple[int, ...] = (1, 2, 4, 8)

    def mode(self, name: str, seed: int) -> Mode:
        """One of `MODES`; the own one learns from both halves in the end."""
        tuning = {PAPER: self.paper, OWN: self.own}[name]
        return Mode(replace(tuning, seed=seed), name == OWN)


@dataclass(frozen=True)
class Preset:
    """One size of the whole study.

    Attributes
    ----------
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
    learning: Learning
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


_PAPER_MODE = Tuning(learning_rate=1e-3, augmented=False, head=False, adapters=False)

SMOKE = Preset(
    "smoke",
    spacing_mm=4.0,
    window=(40, 48, 32),
    down=(6, 8, 8, 8),
    up=(8, 8, 6),
    counts=Counts(training=2, dedicated=2, validation=1, test=2, few=2),
    learning=Learning(12, 12, rate=1e-2, warm_up=0, look_every=6, stride=6, crop=(32, 32)),
    adapting=Adapting(
        paper=replace(_PAPER_MODE, steps=4, validate_every=2),
        own=Tuning(steps=4, validate_every=2),
        whole=Learning(4, 4, batch=4, rate=1e-3, warm_up=0, look_every=2, stride=6),
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
    learning=Learning(1500, 4500, rate=5e-3, look_every=250, crop=(64, 72)),
    adapting=Adapting(
        paper=replace(_PAPER_MODE, steps=300, batch_size=8, validate_every=50, patience=8),
        own=Tuning(steps=600, validate_every=100, patience=6),
        whole=Learning(200, 200, batch=4, rate=3e-4, warm_up=0, look_every=50, stride=2),
    ),
)

FULL = Preset(
    "full",
    spacing_mm=1.0,
    window=(192, 224, 160),
    down=(32, 64, 128, 256),
    up=(128, 64, 32),
    counts=Counts(),
    learning=Learning(3000, 9000, batch=8, warm_up=100, look_every=1000, stride=8),
    adapting=Adapting(
        paper=replace(_PAPER_MODE, steps=1000, batch_size=16, validate_every=100, patience=10),
        whole=Learning(600, 600, batch=16, rate=3e-4, warm_up=0, look_every=60, stride=4),
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({p.name: p for p in (SMOKE, CPU, FULL)})
