"""Dice and surface distance of answers on the scans' own grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
from pipeline.cases import LabelledCase, LabelledScan
from pipeline.networks import Networks
from pipeline.segment import segment_scan


def judged_names(cases: Sequence[LabelledCase], classes: Sequence[str]) -> tuple[str, ...]:
    """What decides: the seven evaluated structures, or else whatever is annotated."""
    scored = scored_names(cases, classes)
    return tuple(name for name in scored if name in EVALUATED) or scored


def scored_names(cases: Sequence[LabelledCase], classes: Sequence[str]) -> tuple[str, ...]:
    """Structures and groups that a case annotates and the backbone can answer."""
    return tuple(
        name
        for name in READING_ORDER
        if classes_of(name, classes) and any(case.annotates(name) for case in cases)
    )


def open_evaluator(networks: Networks, cases: Sequence[LabelledCase], precision: str) -> Evaluator:
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
    cases: Sequence[LabelledCase],
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
    compared = [
        compare(case, answer_case(case, predictor, spec, classes), names, classes)
        for case in (each.opened() for each in cases)
    ]
    scores = {name: CaseScores.of([of[name].dice for of in compared]) for name in names}
    means = [scores[name].mean for name in judged_names(cases, classes)]
    known_means = [mean for mean in means if mean is not None]
    return Scores(
        mean_dice=round(float(np.mean(known_means)), 4) if known_means else 0.0,
        dice=scores,
        hd95_mm={name: CaseScores.of([of[name].hd95_mm for of in compared]) for name in names},
    )


class Agreement(NamedTuple):
    """Of one structure in one case; None where it is not annotated, or in neither."""

    dice: float | None
    hd95_mm: float | None


def answer_case(
    case: LabelledScan, predictor: SlicePredictor, spec: BackboneSpec, classes: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """What the service would answer, (X, Y, Z) numbers of `classes`; no brain: all 0."""
    try:
        ids = segment_scan(case.scan, predictor, spec).ids
    except EmptyScanError:
        return np.zeros_like(case.reference)
    return labels_to_classes(ids, "normbank", classes)


def compare(
    case: LabelledScan,
    answer: npt.NDArray[np.uint8],
    names: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Agreement]:
    """An answer against the reference, for each of these structures and groups."""
    box, numbers = box_of(answer | case.reference), np.arange(len(classes))
    return {
        name: _agreement(case, answer, box, np.isin(numbers, classes_of(name, classes)))
        if case.annotates(name)
        else Agreement(None, None)
        for name in names
    }


def _agreement(
    case: LabelledScan,
    answer: npt.NDArray[np.uint8],
    box: tuple[slice, ...],
    members: npt.NDArray[np.bool_],
) -> Agreement:
    """Of one structure, whose class numbers are true in `members`."""
    mine, theirs = members[answer[box]], members[case.reference[box]]
    if mine.any() != theirs.any():  # the distance is then the whole volume's diagonal
        mine, theirs = members[answer], members[case.reference]
    return Agreement(dice(mine, theirs), hd95_mm(mine, theirs, case.scan.spacing_mm))
