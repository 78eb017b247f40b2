"""Dice and surface distance of answers on the scans' own grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.evaluator import Evaluator
from models.pace import learning_precision
from models.spec import BackboneSpec
from normbank.anatomy import EVALUATED, READING_ORDER, classes_of, labels_to_classes
from normbank.entities import CaseScores, Scores
from normbank.errors import EmptyScanError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.masks import box_of
from normbank.imaging.metrics import dice, hd95_mm
from pipeline.cases import LabelledScan
from pipeline.networks import Networks
from pipeline.segment import segment_scan


def judged_names(cases: Sequence[LabelledScan], classes: Sequence[str]) -> tuple[str, ...]:
    """What decides: the seven evaluated structures, or else whatever is annotated."""
    scored = scored_names(cases, classes)
    return tuple(name for name in scored if name in EVALUATED) or scored


def scored_names(cases: Sequence[LabelledScan], classes: Sequence[str]) -> tuple[str, ...]:
    """Structures and groups that a case annotates and the backbone can answer."""
    return tuple(
        name
        for name in READING_ORDER
        if classes_of(name, classes) and any(case.annotates(name) for case in cases)
    )


def open_evaluator(networks: Networks, cases: Sequence[LabelledScan], precision: str) -> Evaluator:
    """The current backbone, for scoring and tuning states by what the cases annotate.

    Parameters
    ----------
    precision : as in `normbank.config.Settings`
    """
    classes, device = networks.spec.classes, networks.current.device
    return Evaluator(
        networks.backbone,
        device,
        learning_precision(precision, networks.backbone, device),
        judged={name: classes_of(name, classes) for name in judged_names(cases, classes)},
    )


def evaluate(
    cases: Sequence[LabelledScan],
    predictor: SlicePredictor,
    spec: BackboneSpec,
    *,
    judge: BackboneSpec | None = None,
) -> Scores:
    """Dice and HD95 on the scans' own grids, just as the service would answer.

    Parameters
    ----------
    predictor : the network with the state that is judged; it also has to find
        the brain, and where it sees none every structure scores 0
    spec : conventions of that network
    judge : those whose classes the references are in; None: the same ones
    """
    classes = (judge or spec).classes
    names = scored_names(cases, classes)
    overlap: dict[str, list[float | None]] = {name: [] for name in names}
    distance: dict[str, list[float | None]] = {name: [] for name in names}
    for case in cases:
        answer = _answer(case, predictor, spec, classes)
        box = box_of(answer | case.reference)
        for name in names:
            members = np.isin(np.arange(len(classes)), classes_of(name, classes))
            agreed = _agreement(case, answer, box, members) if case.annotates(name) else _UNKNOWN
            overlap[name].append(agreed[0])
            distance[name].append(agreed[1])
    scores = {name: CaseScores.of(values) for name, values in overlap.items()}
    means = [scores[name].mean for name in judged_names(cases, classes)]
    known = [mean for mean in means if mean is not None]
    return Scores(
        mean_dice=round(float(np.mean(known)), 4) if known else 0.0,
        dice=scores,
        hd95_mm={name: CaseScores.of(values) for name, values in distance.items()},
    )


_UNKNOWN = (None, None)


def _answer(
    case: LabelledScan, predictor: SlicePredictor, spec: BackboneSpec, classes: Sequence[str]
) -> npt.NDArray[np.uint8]:
    try:
        ids = segment_scan(case.scan, predictor, spec).ids
    except EmptyScanError:
        return np.zeros_like(case.reference)
    return labels_to_classes(ids, "normbank", classes)


def _agreement(
    case: LabelledScan,
    answer: npt.NDArray[np.uint8],
    box: tuple[slice, ...],
    members: npt.NDArray[np.bool_],
) -> tuple[float | None, float | None]:
    """Dice and HD95 of one structure, whose class numbers are true in `members`."""
    mine, theirs = members[answer[box]], members[case.reference[box]]
    if mine.any() != theirs.any():  # the distance is then the whole volume's diagonal
        mine, theirs = members[answer], members[case.reference]
    return dice(mine, theirs), hd95_mm(mine, theirs, case.scan.spacing_mm)
