"""Whether an answer is anatomy: volumes, places, sides, and how the head lies.

What was answered is measured structure by structure and held against
`normbank.imaging.reference_anatomy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from normbank.anatomy import FREESURFER_OUTPUT, FreeSurferIds
from normbank.entities import Flag
from normbank.entities.flags import info, severe, warning
from normbank.imaging.masks import box_of
from normbank.imaging.reference_anatomy import BRAIN_ML, REFERENCES, Reference
from normbank.imaging.scan import sizes_in_words
from normbank.imaging.sides import Sides

Ids = npt.NDArray[np.integer]
Point = npt.NDArray[np.float64]

_EVERY = 2  # voxels, along each axis, of those that are measured
_LAST_ID = max(ids.right for ids in FREESURFER_OUTPUT.values())
_KNOWN = 12  # of the reference's structures: a backbone that answers fewer is not judged
_DOUBTFUL = 1.6  # times below the least or above the greatest volume met: a warning
_IMPOSSIBLE = (4.0, 3.0)  # times below, times above: severe
_SWELLING = ("lateral-ventricle", "third-ventricle", "fourth-ventricle")  # by illness, widely
_BRAIN_ML = (500.0, 2600.0)  # beyond: no human head in millimetres
_UNEQUAL = 2.0  # times larger than the other side: a deep structure of one side alone
_MISPLACED_MM = 9.0  # mean distance of structures from where they belong
_FAR_MM = 25.0  # distance of a single one
_LEAST_FOR_POSE = 6  # structures, of both sides together
_MIRRORED = 0.65  # share of labels; whole heads have 0.72 to 0.83
_MAY_BE_CUT = ("brain-stem", "csf")
_CUT_MM2 = 300.0  # of brain on a face of the volume
_COARSE_MM, _VERY_COARSE_MM = 2.0, 4.0
_BORDER_MM = 12.0  # a structure this near the volume's edge may be cut


def side_names(name: str, ids: FreeSurferIds) -> list[tuple[str, int]]:
    """`left-…` and `right-…` of a paired structure with their ids; the others as they are."""
    if not ids.paired:
        return [(name, ids.left)]
    return [(f"left-{name}", ids.left), (f"right-{name}", ids.right)]


_NAMED = {
    side: (number, name)
    for name, ids in FREESURFER_OUTPUT.items()
    if name in REFERENCES
    for side, number in side_names(name, ids)
}
"""Side's name -> its id and its structure, in the anatomy's order."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How a head lies in its volume.

    Attributes
    ----------
    rotation : turns a head that lies upright into this one
    centre_mm : (3,), of the brain, in the volume
    residual_mm : mean distance of the structures from where they belong, once turned
    """

    rotation: Rotation
    centre_mm: Point
    residual_mm: float

    @property
    def angle_deg(self) -> float:
        return float(np.degrees(self.rotation.magnitude()))


@dataclass(frozen=True, slots=True)
class Measured:
    """What was answered, structure by structure.

    Attributes
    ----------
    volumes_ml : by side's name, 0 where it is absent
    centres_mm : (3,) of each that is there, in the volume
    extent_mm : (3,), of the volume
    """

    volumes_ml: Mapping[str, float]
    centres_mm: Mapping[str, Point]
    extent_mm: Point

    @classmethod
    def of(
        cls,
        ids: Ids,
        spacing_mm: Sequence[float] | npt.NDArray[np.float64],
        start: Sequence[int] = (0, 0, 0),
        shape: Sequence[int] | None = None,
    ) -> Measured:
        """Measure FreeSurfer ids on axes to the right, to the front and up.

        Parameters
        ----------
        ids : (X, Y, Z), a box of the volume
        spacing_mm : (3,)
        start : the box's first voxel in the volume
        shape : voxels of the volume; None: the box is all of it
        """
        spacing = np.asarray(spacing_mm, float)
        box = box_of(ids)
        sparse = ids[box][::_EVERY, ::_EVERY, ::_EVERY]
        flat = np.ascontiguousarray(sparse).ravel()
        counts = np.bincount(flat, minlength=_LAST_ID + 1)
        with np.errstate(invalid="ignore"):
            places = np.stack([_mean_place(sparse, axis, counts) for axis in range(3)], axis=1)
        first = np.array([part.start for part in box]) + start
        centres = (places * _EVERY + first) * spacing
        voxel_ml = float(spacing.prod()) * _EVERY**3 / 1000
        return cls(
            {side: float(counts[number]) * voxel_ml for side, (number, _) in _NAMED.items()},
            {side: centres[number] for side, (number, _) in _NAMED.items() if counts[number]},
            np.asarray(ids.shape if shape is None else shape) * spacing,
        )

    @property
    def brain_ml(self) -> float:
        return sum(self.volumes_ml.values())

    def pose(self) -> Pose | None:
        """How the head lies, by its structures of both sides together; None for too few.

        Notes
        -----
        Kabsch, Acta Crystallographica A32, 1976.
        """
        names = [name for name in REFERENCES if self._both(name) is not None]
        if len(names) < _LEAST_FOR_POSE:
            return None
        seen = np.stack([centre for name in names if (centre := self._both(name)) is not None])
        upright = np.array([[0.0, REFERENCES[name].y, REFERENCES[name].z] for name in names])
        middle, origin = seen.mean(0), upright.mean(0)
        rotation, _ = Rotation.align_vectors(seen - middle, upright - origin)
        apart = np.linalg.norm(seen - middle - rotation.apply(upright - origin), axis=1)
        return Pose(rotation, middle - rotation.apply(origin), float(apart.mean()))

    def _both(self, name: str) -> Point | None:
        """Where both sides' middle is; None where less than half of the least is there."""
        sides = [side for side, _ in side_names(name, FREESURFER_OUTPUT[name])]
        volumes = [self.volumes_ml[side] for side in sides]
        if sum(volumes) < REFERENCES[name].least_ml * len(sides) / 2:
            return None
        parts = [
            volume * self.centres_mm[side]
            for side, volume in zip(sides, volumes, strict=True)
            if volume
        ]
        return np.asarray(sum(parts) / sum(volumes))


def _mean_place(sparse: Ids, axis: int, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean place along one axis of every id, (I,); NaN where there is none."""
    sums = np.zeros(len(counts))
    for place, plane in enumerate(np.moveaxis(sparse, axis, 0)):
        sums += place * np.bincount(plane.ravel(), minlength=len(counts))
    return sums / counts


def is_judged(classes: Sequence[str]) -> bool:
    """Whether a backbone answers so much of a brain that its answers can be judged."""
    return sum(name in classes for name in REFERENCES) >= _KNOWN


def doubts(measured: Measured, pose: Pose | None, only_side: str | None = None) -> list[Flag]:
    """What of an answer is no anatomy.

    Parameters
    ----------
    measured : of a head that lies upright
    only_side : `left` or `right` where the scan shows half a head
    """
    flags = _brain_doubts(measured, pose, half=only_side is not None)
    if flags:
        return flags  # that says it all
    for side, (_, name) in _NAMED.items():
        if only_side is None or side.startswith(only_side):
            flags += _volume_doubts(measured, pose, side, REFERENCES[name], name)
    if only_side is None:
        flags += _side_doubts(measured, {flag.structure for flag in flags})
    return flags


def _brain_doubts(measured: Measured, pose: Pose | None, *, half: bool) -> list[Flag]:
    low, high = (limit / 2 if half else limit for limit in _BRAIN_ML)
    brain = measured.brain_ml
    if not low <= brain <= high:
        least, greatest = BRAIN_ML
        said = f"The brain has {brain:.0f} ml; those of adults have {least:.0f} to {greatest:.0f}."
        return [severe("implausible_volume", said)]
    if pose is None:
        return [severe("missing_structure", "Too few structures of a brain were found.")]
    if pose.residual_mm > _MISPLACED_MM and not half:
        said = f"The structures lie {pose.residual_mm:.0f} mm on average from where they belong."
        return [severe("implausible_position", said)]
    return []


def _volume_doubts(
    measured: Measured, pose: Pose | None, side: str, reference: Reference, name: str
) -> list[Flag]:
    volume = measured.volumes_ml[side]
    least, greatest = reference.least_ml, reference.greatest_ml
    fine = least / _DOUBTFUL <= volume <= greatest * _DOUBTFUL
    if fine or (volume > greatest and name in _SWELLING):
        return []
    if volume < least and pose is not None and _is_near_edge(measured, pose, side, reference):
        said = f"{side} lies at the edge of the volume or beyond it: {volume:.1f} ml were seen."
        return [warning("field_of_view", said, side)]
    below, above = _IMPOSSIBLE
    grave = volume * below < least or volume > greatest * above
    flag = severe if grave and name not in _SWELLING else warning
    if not volume:
        return [flag("missing_structure", f"{side} was not found.", side)]
    said = f"{side} has {volume:.2f} ml; those of adults have {least:g} to {greatest:g}."
    return [flag("implausible_volume", said, side)]


def _is_near_edge(measured: Measured, pose: Pose, side: str, reference: Reference) -> bool:
    """Whether the place where a structure belongs is outside of the volume, or nearly."""
    x = -reference.x if side.startswith("left-") else reference.x
    place = pose.centre_mm + pose.rotation.apply([x, reference.y, reference.z])
    return bool((place < _BORDER_MM).any() or (place > measured.extent_mm - _BORDER_MM).any())


def _side_doubts(measured: Measured, known: set[str | None]) -> list[Flag]:
    """Deep structures that are much larger on one side."""
    flags = []
    for name, reference in REFERENCES.items():
        left, right = (measured.volumes_ml.get(f"{side}-{name}") for side in ("left", "right"))
        if not reference.deep or left is None or right is None or not min(left, right):
            continue
        if {f"left-{name}", f"right-{name}"} & known or max(left, right) < _UNEQUAL * min(
            left, right
        ):
            continue
        said = f"{name} has {left:.2f} ml on the left and {right:.2f} ml on the right."
        flags.append(warning("sides_uncertain", said, name))
    return flags


def half_doubts(sides: Sides) -> list[Flag]:
    """Doubts about left and right, by how well one half mirrors the other."""
    if sides.only == "unknown":
        said = "Half a head was labelled, and nobody can say which half."
        return [severe("sides_uncertain", said)]
    if sides.only is not None:
        said = f"Half a head was found: the {sides.only} one. It has the labels of its side alone."
        return [warning("half_head", said)]
    if sides.mirrored < _MIRRORED:
        said = f"Of the labels {sides.mirrored:.0%} mirror onto their like; of a head's some 80 %."
        return [warning("sides_uncertain", said)]
    return []


def cut_off(labels: npt.NDArray[np.uint8], spacing_mm: float) -> list[Flag]:
    """Faces of the volume at which the brain ends as if cut.

    Parameters
    ----------
    labels : (X, Y, Z), FreeSurfer ids on axes to the right, to the front and up
    """
    counts = np.ones(256, bool)
    counts[[0, *(FREESURFER_OUTPUT[name].left for name in _MAY_BE_CUT)]] = False
    cut = []
    for axis, names in enumerate((("left", "right"), ("back", "front"), ("bottom", "top"))):
        for name, end in zip(names, (0, -1), strict=True):
            area = np.count_nonzero(counts[np.moveaxis(labels, axis, 0)[end]]) * spacing_mm**2
            if area > _CUT_MM2:
                cut.append(f"the {name} ({area / 100:.0f} cm²)")
    if not cut:
        return []
    return [warning("field_of_view", f"The brain is cut off at {', '.join(cut)} of the volume.")]


def resolution_doubts(spacing_mm: Sequence[float]) -> list[Flag]:
    """Whether voxels are too large for small structures."""
    if max(spacing_mm) <= _COARSE_MM:
        return []
    sizes = sizes_in_words(spacing_mm)
    said = f"Voxels measure {sizes} mm: small structures are less certain than at 1 mm."
    return [(warning if max(spacing_mm) > _VERY_COARSE_MM else info)("resolution", said)]
