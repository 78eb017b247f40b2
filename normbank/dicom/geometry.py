"""Where the slices of a series lie, and whether they make one regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.dicom.frames import Frame
from normbank.errors import DicomError

Floats = npt.NDArray[np.float64]

MIN_SLICES = 5
_SAME_DIRECTION = 1e-3  # of a direction cosine
_NOT_UNIT = 5e-3  # of a direction's length, and of the cosine between a row and a column
_SAME_SPACING = 1e-3  # of a pixel's size
_SAME_POSITION_MM = 1e-2
_EVEN = 0.02  # of the distance of slices
_SHEAR = 5e-3  # tangent of the angle between the slices' line and their normal
_ASTRAY = 0.1  # of a pixel: a slice beside the line of the others
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices in order.

    Attributes
    ----------
    order : positions of the frames, along the normal of rows and columns
    affine : (4, 4) voxel (column, row, slice) to RAS+ mm, in float32 values
    between_mm : from slice to slice
    """

    order: tuple[int, ...]
    affine: Floats
    between_mm: float


def check_planes(frames: Sequence[Frame]) -> None:
    """Make sure that all slices are parallel, with pixels of one size.

    Raises
    ------
    DicomError
        `bad_orientation`, `mixed_orientation` or `mixed_spacing`.
    """
    orientations = np.array([frame.orientation for frame in frames])
    first = orientations[0]
    row, column = first[:3], first[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if (abs(lengths - 1) > _NOT_UNIT).any() or abs(row @ column) > _NOT_UNIT:
        raise DicomError(
            "ImageOrientationPatient does not hold two directions at right angles. Export the "
            "series again.",
            code="bad_orientation",
        )
    if abs(orientations - first).max() > _SAME_DIRECTION:
        count = len(np.unique(np.round(orientations, 2), axis=0))
        raise DicomError(
            f"The slices of the series lie in {max(count, 2)} different directions, so they are "
            "not one volume. Send a series whose slices are parallel; localisers and radial "
            "scans are not.",
            code="mixed_orientation",
        )
    spacings = np.array([frame.spacing for frame in frames])
    if abs(spacings / spacings[0] - 1).max() > _SAME_SPACING:
        raise DicomError(
            "The pixels of the slices differ in size (PixelSpacing). Send slices of one scan.",
            code="mixed_spacing",
        )


def along_normal(frames: Sequence[Frame]) -> Floats:
    """(N,) mm of each frame along the normal of the first."""
    row, column = np.split(np.array(frames[0].orientation), 2)
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    return np.asarray(positions @ (normal / np.linalg.norm(normal)), np.float64)


def places_of(frames: Sequence[Frame]) -> npt.NDArray[np.intp]:
    """(N,) number of the place of each frame along the normal; frames at one place share it."""
    along = along_normal(frames)
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order]) > _SAME_POSITION_MM
    places = np.empty(len(frames), np.intp)
    places[order] = np.concatenate([[0], np.cumsum(steps)])
    return places


def stack(frames: Sequence[Frame]) -> Stack:
    """Order frames, of which no two lie at one place, and find their grid.

    Raises
    ------
    DicomError
        `too_few_slices`, `missing_slices`, `uneven_slices`, `sheared_slices` or
        `shifted_slices`.
    """
    if len(frames) < MIN_SLICES:
        raise DicomError(
            f"The series has {len(frames)} of the at least {MIN_SLICES} slices of a volume. Send "
            "all of its images.",
            code="too_few_slices",
            facts={"slices": len(frames)},
        )
    along = along_normal(frames)
    order = np.argsort(along, kind="stable")
    between = _check_distances(np.diff(along[order]))
    positions = np.array([frames[i].position for i in order])
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    first = frames[order[0]]
    row, column = np.split(np.array(first.orientation), 2)
    _check_line(positions, step, row, column, min(first.spacing))
    affine = np.eye(4)
    affine[:3, 0] = row * first.spacing[1]
    affine[:3, 1] = column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    ras = (_TO_RAS @ affine).astype(np.float32).astype(np.float64)
    return Stack(tuple(int(i) for i in order), ras, between)


def _check_distances(distances: Floats) -> float:
    """The distance that all slices have, or a refusal."""
    usual = float(np.median(distances))
    tolerance = max(_EVEN * usual, _SAME_POSITION_MM)
    odd = abs(distances - usual) > tolerance
    if not odd.any():
        return usual
    steps = np.round(distances / usual)
    facts: dict[str, Any] = {"slices": len(distances) + 1, "usual_distance_mm": round(usual, 3)}
    whole = abs(distances - steps * usual) <= tolerance * np.maximum(steps, 1)
    if whole.all() and odd.sum() <= len(distances) / 2:
        gaps = {int(i) + 1: int(steps[i]) - 1 for i in np.flatnonzero(odd)}
        facts["missing_after"] = [{"slice": i, "missing": n} for i, n in gaps.items()]
        raise DicomError(
            f"The series has gaps after slice {', '.join(map(str, list(gaps)[:5]))} along the "
            f"stack, in which {sum(gaps.values())} of {int(steps.sum()) + 1} slices are missing. "
            "Send the complete series.",
            code="missing_slices",
            facts=facts,
        )
    raise DicomError(
        f"The slices lie unevenly, between {distances.min():.3g} and {distances.max():.3g} mm "
        "apart. Send the complete series of one scan.",
        code="uneven_slices",
        facts=facts,
    )


def _check_line(positions: Floats, step: Floats, row: Floats, column: Floats, pixel: float) -> None:
    """Refuse slices that do not lie above each other."""
    direction = step / np.linalg.norm(step)
    if max(abs(direction @ row), abs(direction @ column)) > _SHEAR:
        raise DicomError(
            "Each slice is shifted against the one before, as a tilted gantry does; the grid "
            "would not be rectangular. Reformat the series to straight slices.",
            code="sheared_slices",
        )
    line = positions[0] + np.arange(len(positions))[:, None] * step
    beside = positions - line
    if max(abs(beside @ row).max(), abs(beside @ column).max()) > _ASTRAY * pixel:
        raise DicomError(
            "Some slices lie beside the others. Send slices of one scan, not moved afterwards.",
            code="shifted_slices",
        )
