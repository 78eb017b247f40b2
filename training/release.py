"""The training of a released backbone: label maps alone, simulated scans of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.backbone import load_backbone
from models.cases import LabelledSlices
from models.packs import read_states
from models.spec import SLICE_REACH, BackboneSpec
from normbank.anatomy import GROUPS, STRUCTURES
from training.classes import starting_states, with_classes
from training.families import FAMILIES, turns
from training.heads import draw_case, label_maps
from training.run import Plan

CROP = (144, 176)  # a brain, as close as it fits


@dataclass(frozen=True)
class SimulatedCases:
    """Case number i: a head, a family and a scanner that follow from i alone."""

    maps: Sequence[Path]
    spec: BackboneSpec
    seed: int

    def __call__(self, number: int) -> LabelledSlices:
        names = list(FAMILIES)
        family = FAMILIES[names[number % len(names)]]
        # Every family meets every head: the head moves on once per round of families.
        head = self.maps[(number // len(names)) % len(self.maps)]
        return draw_case(head, family, self.spec, self.seed * 1_000_003 + number)


def finer_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Every group replaced by its first member; the other members follow at the end."""
    first = [GROUPS.get(name, (name,))[0] for name in classes]
    return (*first, *(name for name in STRUCTURES if name not in first))


def release_plan(
    maps: Path,
    *,
    name: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int = 0,
    start: Path | None = None,
) -> Plan:
    """Settings of the training of a backbone that can ship.

    Parameters
    ----------
    maps : folder of whole-head label maps
    name : of the backbone
    start : folder of a backbone to go on from; None: from nothing
    """
    map_paths = label_maps(maps)
    facts: dict[str, Any] = {
        "data": f"{len(map_paths)} whole-head label maps, images simulated",
        "real_scans": 0,
        "steps": steps,
        "slices_per_step": batch_size,
        "learning_rate": learning_rate,
        "loss": "Dice over present classes + 0.5 cross-entropy",
    }
    if start is None:
        spec = BackboneSpec(name=name, classes=STRUCTURES, slice_reach=SLICE_REACH, training=facts)
        begun = None
    else:
        old = load_backbone(start)
        facts["start"] = {"name": old.spec.name, "sha256": old.sha256}
        spec = replace(
            old.spec,
            name=name,
            classes=finer_classes(old.spec.classes),
            slice_reach=SLICE_REACH,
            training=facts,
        )
        finer = with_classes(old, spec)
        begun = (finer, starting_states(finer, read_states(start, old)))
    return Plan(
        spec=spec,
        order=turns({name: family.share for name, family in FAMILIES.items()}, steps),
        make=SimulatedCases(map_paths, spec, seed),
        domains=tuple(FAMILIES),
        batch_size=batch_size,
        learning_rate=learning_rate,
        crop=CROP,
        seed=seed,
        start=begun,
    )
