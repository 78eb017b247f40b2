"""The training on a user's own labelled scans, named by a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from models.backbone import load_backbone
from models.cases import LabelledSlices
from models.evaluator import Evaluator
from models.nearest import nearest
from models.packs import read_states
from models.spec import SLICE_REACH, BackboneSpec
from models.state import State
from models.train import Start
from normbank.anatomy import STRUCTURES
from normbank.errors import InvalidError
from training.families import turns
from training.labelled import read_case
from training.manifest import Row
from training.run import Plan


@dataclass(frozen=True)
class OwnCases:
    """Case number i: the domains take turns, each goes round its scans."""

    rows: Sequence[Row]
    domains: Sequence[str]
    spec: BackboneSpec

    def __call__(self, number: int) -> LabelledSlices:
        domain = self.domains[number % len(self.domains)]
        mine = [row for row in self.rows if row.domain == domain]
        return read_case(mine[number // len(self.domains) % len(mine)], self.spec)


def own_plan(
    rows: Sequence[Row],
    *,
    name: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int = 0,
    start: Path | None = None,
) -> Plan:
    """Settings of a training on labelled scans.

    Parameters
    ----------
    rows : those of the role `train` are learnt from
    start : folder of a backbone to go on from; None: from nothing

    Raises
    ------
    InvalidError
        `bad_manifest`, when no row is to be learnt from.
    """
    mine = [row for row in rows if row.role == "train"]
    if not mine:
        raise InvalidError("No row of the manifest has the role `train`.", code="bad_manifest")
    domains = tuple(dict.fromkeys(row.domain for row in mine))
    counts = [sum(row.domain == domain for row in mine) for domain in domains]
    facts = {"data": f"{len(mine)} labelled scans of {len(domains)} domains"}
    spec, begun = BackboneSpec(name, STRUCTURES, slice_reach=SLICE_REACH), None
    if start is not None:
        spec = replace(load_backbone(start).spec, name=name)
        begun = _start(start, spec, mine, domains)
    return Plan(
        spec=replace(spec, training=facts),
        order=turns(dict.fromkeys(domains, 1.0), steps),
        make=OwnCases(mine, domains, spec),
        domains=domains,
        batch_size=batch_size,
        learning_rate=learning_rate,
        kept=max(counts),
        renew_every=0,
        seed=seed,
        start=begun,
    )


def _start(folder: Path, spec: BackboneSpec, rows: Sequence[Row], domains: Sequence[str]) -> Start:
    """Every domain starts from the state that does best on its first scan."""
    backbone = load_backbone(folder)
    stored = read_states(folder, backbone)
    evaluator = Evaluator(backbone, torch.device("cpu"), torch.float32)
    states: dict[str, State] = {}
    for domain in domains:
        first = next(row for row in rows if row.domain == domain)
        best = nearest(evaluator, stored, [read_case(first, spec)], stride=8)[0]
        states[domain] = stored[best.ref]
    return backbone, states
