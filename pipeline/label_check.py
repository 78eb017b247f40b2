"""Whether labels are those of their scan: what can be seen before anything is learnt from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from normbank.anatomy import (
    FREESURFER_OUTPUT,
    STRUCTURES,
    labels_to_classes,
    sided_ids,
    structures_of,
)
from normbank.entities import Flag
from normbank.entities.flags import severe, severe_ones, warning
from normbank.imaging.intensity import intensity_unit
from normbank.imaging.masks import middle_of
from normbank.imaging.metrics import dice
from normbank.imaging.reference_anatomy import REFERENCES
from normbank.imaging.scan import LabelVolume, Scan
from pipeline.segment import SegmentedScan

_AIR = 0.02  # of the scan's unit: nothing but air is so dark
_ON_AIR = 0.15  # share of labelled voxels
_ITSELF = 0.98  # share of labelled voxels at which the scan holds the label's number
_ALONE = 0.1  # of the other side's volume: a structure of one side alone
_TOO_LARGE, _TOO_SMALL = 2.5, 4.0  # times the greatest and below the least volume met
_SHIFT_MM = 3.5  # between a structure's places in the labels and in the answer
_AGREEMENT = 0.45  # mean Dice of deep structures, of labels that belong to a scan
_GOOD_AGREEMENT = 0.75  # below: perhaps another person's, or of a contrast that no state knows
_LEAST_COMPARED = 3  # deep structures


Look = Callable[[Scan], SegmentedScan | None]
"""What a stored state sees in a scan; None where it sees no brain, or cannot be served."""


@dataclass(frozen=True, slots=True)
class CheckedLabels:
    """What was understood of a scan's labels.

    Attributes
    ----------
    volumes_ml : of every structure that occurs, both sides together
    flags : what is doubtful
    """

    volumes_ml: Mapping[str, float]
    flags: tuple[Flag, ...]


def check_labels(scan: Scan, labels: LabelVolume, scheme: str) -> CheckedLabels:
    """Look at labels beside their scan, without a network.

    Parameters
    ----------
    scan, labels : on one grid
    scheme : one of `normbank.anatomy.LABEL_SCHEMES`, whose ids the labels hold
    """
    counts = _counts(labels.data)
    voxel_ml = float(abs(np.linalg.det(scan.affine[:3, :3]))) / 1000
    volumes: dict[str, float] = {}
    for number, structure in structures_of(scheme).items():
        if structure in FREESURFER_OUTPUT and number in counts:
            volumes[structure] = volumes.get(structure, 0.0) + counts[number] * voxel_ml
    flags = [
        *_scan_doubts(scan, labels),
        *_side_doubts(scan, labels, scheme, counts),
        *_volume_doubts(volumes),
    ]
    return CheckedLabels(volumes, tuple(flags))


def compare_with_looks(
    scan: Scan, labels: LabelVolume, scheme: str, looks: list[Look]
) -> list[Flag]:
    """The least that a state says against labels; nothing where one agrees, or none sees anatomy.

    Parameters
    ----------
    looks : the one that agrees is moved to the front: it is likely to know the next scan too
    """
    least: list[Flag] | None = None
    for place, look in enumerate(looks):
        answer = look(scan)
        if answer is None or severe_ones(answer.flags):
            continue
        doubts = compare_with_answer(scan, labels, scheme, answer)
        if least is None or not doubts or (severe_ones(least) and not severe_ones(doubts)):
            least = doubts
        if not doubts:
            looks.insert(0, looks.pop(place))
            break
    return least or []


def compare_with_answer(
    scan: Scan, labels: LabelVolume, scheme: str, answer: SegmentedScan
) -> list[Flag]:
    """Hold labels against what a stored state sees in the scan, where that is anatomy.

    Parameters
    ----------
    answer : without severe flags
    """
    reference = labels_to_classes(labels.data, scheme, STRUCTURES)
    classes = labels_to_classes(answer.ids, "normbank", STRUCTURES)
    dices, shifts = [], []
    for name, known in REFERENCES.items():
        number = STRUCTURES.index(name)
        ours, theirs = classes == number, reference == number
        if not known.deep or not ours.any() or not theirs.any():
            continue
        dices.append(dice(ours, theirs) or 0.0)
        moved = middle_of(theirs) - middle_of(ours)
        shifts.append(scan.affine[:3, :3] @ moved)
    if len(dices) < _LEAST_COMPARED:
        return []
    shift, agreement = float(np.linalg.norm(np.median(shifts, axis=0))), float(np.mean(dices))
    if shift > _SHIFT_MM:
        said = f"The labels lie {shift:.0f} mm from where the structures of the scan are seen."
        return [severe("labels_elsewhere", said)]
    if agreement < _GOOD_AGREEMENT:
        said = f"The labels agree with what is seen in the scan at a Dice of {agreement:.2f} only."
        return [(severe if agreement < _AGREEMENT else warning)("labels_elsewhere", said)]
    return []


def _counts(labels: npt.NDArray[np.int32]) -> dict[int, int]:
    """Voxels of each id but 0, in ascending order."""
    found: Counter[int] = Counter()
    for plane in np.moveaxis(labels, 2, 0):
        ids, counts = np.unique(plane, return_counts=True)
        found.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
    return {number: found[number] for number in sorted(found) if number}


def _voxels(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _scan_doubts(scan: Scan, labels: LabelVolume) -> list[Flag]:
    """A scan that is its own label map, and labels on air."""
    count = _voxels(labels.data > 0)
    if not count:
        return [severe("no_labels", "No voxel is labelled.")]
    itself = _voxels((scan.data == labels.data) & (labels.data > 0)) / count
    if itself > _ITSELF:
        return [severe("label_map_as_scan", "The scan holds the labels themselves.")]
    air = np.float32(_AIR * intensity_unit(scan.data))
    on_air = _voxels((scan.data <= air) & (labels.data > 0)) / count
    if on_air > _ON_AIR:
        return [severe("labels_on_air", f"{on_air:.0%} of the labelled voxels show air.")]
    return []


def _side_doubts(
    scan: Scan, labels: LabelVolume, scheme: str, counts: Mapping[int, int]
) -> list[Flag]:
    """Structures of one side alone, and sides that are swapped."""
    alone, swapped, right_way = [], [], 0
    for name, (left, right) in sided_ids(scheme).items():
        pair = counts.get(left, 0), counts.get(right, 0)
        if not any(pair) or name not in REFERENCES or not REFERENCES[name].deep:
            continue
        if min(pair) < _ALONE * max(pair):
            alone.append(name)
        elif _mean_x(labels, scan, left) > _mean_x(labels, scan, right):
            swapped.append(name)
        else:
            right_way += 1
    flags = []
    if alone:
        said = f"Only one side is labelled of {', '.join(alone)}."
        flags.append(severe("one_sided", said))
    if len(swapped) > right_way:
        unknown = any(flag.code == "orientation_unknown" for flag in scan.flags)
        said = f"What is labelled left lies on the right: {', '.join(swapped)}."
        flags.append((warning if unknown else severe)("sides_swapped", said))
    return flags


def _mean_x(labels: LabelVolume, scan: Scan, number: int) -> float:
    """Mean place of an id towards the patient's right, mm."""
    return float(scan.affine[0, :3] @ middle_of(labels.data == number))


def _volume_doubts(volumes: Mapping[str, float]) -> list[Flag]:
    flags = []
    for name, reference in REFERENCES.items():
        volume = volumes.get(name)
        if volume is None:
            continue
        sides = 2 if FREESURFER_OUTPUT[name].paired else 1
        least, greatest = reference.least_ml * sides, reference.greatest_ml * sides
        if volume * _TOO_SMALL < least or (
            volume > greatest * _TOO_LARGE and "ventricle" not in name
        ):
            said = f"{name} has {volume:.2f} ml; those of adults have {least:g} to {greatest:g}."
            flags.append(severe("implausible_volume", said, name))
    return flags
