"""The labelled cases of a domain, in the network's space."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.cases import LabelledSlices
from models.spec import BackboneSpec
from normbank.anatomy import (
    BACKGROUND,
    EVALUATED,
    READING_ORDER,
    classes_of,
    labels_to_classes,
    members_of,
)
from normbank.entities import Case
from normbank.errors import EmptyScanError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.masks import box_of
from normbank.imaging.metrics import dice, hd95_mm
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.scan import Scan
from pipeline.segment import (
    FramedScan,
    frame_outline,
    frame_scan,
    segment_scan,
)
from worker.workplace import Workplace


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One case on its own grid.

    Attributes
    ----------
    reference : (X, Y, Z) uint8, classes of the backbone
    structures : names that the reference can be asked about; no groups
    """

    case: Case
    scan: Scan
    reference: npt.NDArray[np.uint8]
    structures: frozenset[str]

    def slices(self, framed: FramedScan, spec: BackboneSpec) -> LabelledSlices:
        """What the network sees of it, with the reference beside."""
        annotated = np.array([self.annotates(name) for name in spec.classes])
        classes = framed.label_slices(self.reference, len(spec.classes))
        return LabelledSlices(framed.slices, classes, annotated, consecutive=True)

    def annotates(self, name: str) -> bool:
        """Whether a structure, or every member of a group, is annotated."""
        return members_of([name]) <= self.structures

    def frame(self, predictor: SlicePredictor | None, spec: BackboneSpec) -> FramedScan:
        """Find the brain; by the outline alone where no state sees it yet."""
        if predictor is not None:
            try:
                return frame_scan(self.scan, predictor, spec)
            except EmptyScanError:
                pass  # a state that sees no brain cannot say where it is
        return frame_outline(self.scan, spec)


def load_case(place: Workplace, case: Case) -> LabelledScan:
    """Read a case from the blob store."""
    spec = place.backbone.spec
    with tempfile.TemporaryDirectory() as folder:
        scan_path, labels_path = Path(folder) / "scan", Path(folder) / "labels"
        place.blobs.fetch(case.scan_sha256, scan_path)
        place.blobs.fetch(case.labels_sha256, labels_path)
        scan = read_scan(scan_path, case.scan_name, place.limits)
        labels = read_labels(labels_path, case.labels_name, place.limits)
    reference = labels_to_classes(labels.data, case.label_scheme, spec.classes)
    return LabelledScan(case, scan, reference, members_of(case.structures) - {BACKGROUND})


def judged_names(cases: Sequence[LabelledScan], classes: Sequence[str]) -> tuple[str, ...]:
    """What decides: the seven evaluated structures, or else whatever is annotated."""
    known = scored_names(cases, classes)
    return tuple(n for n in known if n in EVALUATED) or known


def scored_names(cases: Sequence[LabelledScan], classes: Sequence[str]) -> tuple[str, ...]:
    """Structures and groups that a case annotates and the backbone can answer."""
    return tuple(
        name
        for name in READING_ORDER
        if classes_of(name, classes) and any(case.annotates(name) for case in cases)
    )


def evaluate(
    cases: Sequence[LabelledScan],
    predictor: SlicePredictor,
    spec: BackboneSpec,
    *,
    judge: BackboneSpec | None = None,
) -> dict[str, Any]:
    """Dice and HD95 on the scans' own grids, just as the service would answer.

    Parameters
    ----------
    predictor : the network with the state that is judged; it also has to find
        the brain, and where it sees none every structure scores 0
    spec : conventions of that network
    judge : those whose classes the references are in; None: the same ones

    Returns
    -------
    `mean_dice` over the judged structures, and per structure `dice` and
    `hd95_mm`, each with `mean` and the list `cases` (None where both empty)
    """
    classes = (judge or spec).classes
    names = scored_names(cases, classes)
    overlap: dict[str, list[float | None]] = {name: [] for name in names}
    distance: dict[str, list[float | None]] = {name: [] for name in names}
    for case in cases:
        answer = _answered(case, predictor, spec, classes)
        box = box_of(answer | case.reference)
        for name in names:
            asked = np.isin(np.arange(len(classes)), classes_of(name, classes))
            agreed = _agreement(case, answer, box, asked) if case.annotates(name) else (None, None)
            overlap[name].append(_rounded(agreed[0]))
            distance[name].append(_rounded(agreed[1]))
    scores = {name: _summary(values) for name, values in overlap.items()}
    judged = [scores[name]["mean"] for name in judged_names(cases, classes)]
    known = [mean for mean in judged if mean is not None]
    return {
        "mean_dice": round(float(np.mean(known)), 4) if known else 0.0,
        "dice": scores,
        "hd95_mm": {name: _summary(values) for name, values in distance.items()},
    }


def _answered(
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
    asked: npt.NDArray[np.bool_],
) -> tuple[float | None, float | None]:
    """Dice and HD95 of one structure, whose class numbers are true in `asked`."""
    mine, theirs = asked[answer[box]], asked[case.reference[box]]
    if mine.any() != theirs.any():  # the distance is then the whole volume's diagonal
        mine, theirs = asked[answer], asked[case.reference]
    return dice(mine, theirs), hd95_mm(mine, theirs, case.scan.spacing_mm)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _summary(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {"mean": round(float(np.mean(known)), 4) if known else None, "cases": values}
