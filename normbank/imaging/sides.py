"""Left and right, for a network that does not tell them apart.

The mid-sagittal plane is the one in which the labels mirror best onto
themselves; each paired structure is split there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from normbank.anatomy import answered_ids
from normbank.imaging.masks import Box, box_of, relabelled, voxels_by_component
from normbank.imaging.threads import in_threads

_GUESS_ANGLES_DEG = np.arange(-25.0, 26.0, 5.0)
_GUESS_OFFSETS_MM = (-8.0, -4.0, 0.0, 4.0, 8.0)
_GUESS_POINTS = 300  # per structure
_FINE_POINTS = 3000
_TILT_COST = 2e-3  # of a mirror score of 1, for a tilt of 25 degrees
_WHOLE = 0.9  # a component of which more lies on one side goes there as a whole
_HALF = 0.5  # mirrored less than this: half a head
_OFF_CENTRE = 5.0  # voxels between the middle of the cerebrum and that of what lies medially
_MEDIAL = ("thalamus", "lateral-ventricle", "third-ventricle", "ventral-dc", "brain-stem")
_UNSIDED = "csf"  # neither split nor a guide to the middle
_CEREBRUM = ("cerebral-gm", "cerebral-wm")  # one piece on both sides: always cut


@dataclass(frozen=True, slots=True)
class Plane:
    """Points p in voxels with normal · p = offset; left is below.

    Attributes
    ----------
    normal : unit vector (3,), to the patient's right
    offset : voxels from the first voxel
    mirrored : share of the labels that the plane mirrors onto their like; some 0.8 for a
        head, 0.3 for half of one
    """

    normal: tuple[float, float, float]
    offset: float
    mirrored: float = 1.0

    def side(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """(X, Y, Z), whether a voxel lies right of the plane."""
        x, y, z = (n * np.arange(k) for n, k in zip(self.normal, shape, strict=True))
        left_to_go = self.offset - (y[:, None] + z)
        return np.asarray(x[:, None, None] >= left_to_go)


class Sides(NamedTuple):
    """A class map with sides.

    Attributes
    ----------
    ids : (X, Y, Z) int16, FreeSurfer's
    mirrored : see `Plane`
    only : `left` or `right` where half a head was labelled, `unknown` where nobody can say
        which half; None for a whole one
    """

    ids: npt.NDArray[np.int16]
    mirrored: float
    only: str | None


def split_sides(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> Sides:
    """FreeSurfer ids of a class map, paired structures split at the middle.

    Half a head gets the ids of its side alone.

    Parameters
    ----------
    classes : (X, Y, Z), RAS+, 1 mm
        The head may be tilted by some 25 degrees and lie anywhere.
    names : structures in class order, with `background`

    Examples
    --------
    A thalamus on each side of a drawn cerebrum; the first axis grows to the right:

    >>> classes = np.zeros((40, 40, 20), np.uint8)
    >>> classes[4:36, 4:36, 4:16] = 1
    >>> classes[12:17, 18:24, 8:12] = classes[23:28, 18:24, 8:12] = 2
    >>> ids = split_sides(classes, ("background", "cerebral-wm", "thalamus")).ids
    >>> int(ids[14, 20, 10]), int(ids[25, 20, 10])
    (10, 49)
    """
    ids = np.zeros(classes.shape, np.int16)
    box = box_of(classes)
    plane = midsagittal_plane(classes, names)
    answered = [answered_ids(name) for name in names]
    labelled = np.ascontiguousarray(classes[box])
    only = None if plane.mirrored >= _HALF else _half_of(labelled, names)
    if only is None or only == "unknown":
        right = plane.side(classes.shape)[box]
    else:
        right = np.full(labelled.shape, only == "right")
    may_move = np.zeros(256, np.uint8)
    for number, (name, answer_ids) in enumerate(zip(names, answered, strict=True)):
        if answer_ids is not None and answer_ids.paired and name not in _CEREBRUM:
            may_move[number] = number
    places = ndimage.find_objects(relabelled(labelled, may_move), max_label=len(names))
    for number, place in enumerate(places, start=1):
        if place is not None:
            _keep_whole(labelled[place] == number, right[place])
    left_ids, right_ids = np.zeros((2, 256), np.uint8)
    for number, answer_ids in enumerate(answered):
        if answer_ids is not None:
            left_ids[number], right_ids[number] = answer_ids.left, answer_ids.right
    ids[box] = np.where(right, relabelled(labelled, right_ids), relabelled(labelled, left_ids))
    return Sides(ids, plane.mirrored, only)


def _half_of(labelled: npt.NDArray[np.uint8], names: Sequence[str]) -> str | None:
    """Which half of a head is there: the middle is where the deep structures are.

    Returns
    -------
    None where a cerebrum and its deep structures were not both labelled
    """
    cerebrum, deep = (
        np.isin(labelled, [number for number, name in enumerate(names) if name in group])
        for group in (_CEREBRUM, _MEDIAL)
    )
    if not (cerebrum.any() and deep.any()):
        return None
    shift = _mean_first(deep) - _mean_first(cerebrum)
    if abs(shift) < _OFF_CENTRE:
        return "unknown"
    return "left" if shift > 0 else "right"


def _mean_first(mask: npt.NDArray[np.bool_]) -> float:
    counts = mask.sum((1, 2))
    return float(counts @ np.arange(len(counts)) / counts.sum())


def _keep_whole(mask: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> None:
    """Move components that lie nearly on one side there; changes `right`."""
    voxels, numbers = voxels_by_component(mask)
    where = np.unravel_index(voxels, mask.shape)
    share = np.bincount(numbers, right[where]) / np.bincount(numbers)
    to_right = share > _WHOLE
    moved = (to_right | (share < 1 - _WHOLE))[numbers]
    right[tuple(w[moved] for w in where)] = to_right[numbers[moved]]


def midsagittal_plane(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> Plane:
    """The plane in which the labels mirror best onto themselves.

    Parameters
    ----------
    classes : (X, Y, Z), RAS+, 1 mm
    names : structures in class order

    Returns
    -------
    the middle of the volume when nothing is labelled
    """
    guides = np.zeros(256, bool)
    for number, name in enumerate(names):
        guides[number] = answered_ids(name) is not None and name != _UNSIDED
    box = box_of(classes)
    voxels = _Voxels.of(classes, box, guides)
    if not len(voxels.at):
        return Plane((1.0, 0.0, 0.0), (classes.shape[0] - 1) / 2)
    few, many = voxels.drawn(_GUESS_POINTS), voxels.drawn(_FINE_POINTS)
    mirror = _Mirror(classes, box, few.points.mean(axis=0))
    tilts = list(product(_GUESS_ANGLES_DEG, repeat=2))
    scores = np.array(
        in_threads(lambda t: mirror.scores(t[0], t[1], _GUESS_OFFSETS_MM, few), tilts)
    )
    tilt, offset = np.unravel_index(scores.argmax(), scores.shape)
    guess = np.array([*tilts[tilt], _GUESS_OFFSETS_MM[offset]])
    optimum = optimize.minimize(
        lambda p: -mirror.scores(p[0], p[1], p[2:], many)[0],
        guess,
        method="Nelder-Mead",
        options={
            "initial_simplex": guess + np.vstack([np.zeros(3), np.diag([3.0, 3.0, 3.0])]),
            "xatol": 0.02,
            "fatol": 1e-5,
            "maxfev": 150,
        },
    )
    return replace(mirror.plane(*optimum.x), mirrored=-float(optimum.fun))


class _Drawn(NamedTuple):
    """Some voxels: (P, 3) float32, the same as (3, P), and their classes (P,)."""

    points: npt.NDArray[np.float32]
    columns: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Voxels:
    """The voxels of the classes that guide, class by class.

    Attributes
    ----------
    box : of the volume
    at : (V,), places in the flattened box
    ends : (256,), where in `at` each class ends
    """

    box: Box
    at: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]

    @classmethod
    def of(cls, classes: npt.NDArray[np.uint8], box: Box, guides: npt.NDArray[np.bool_]) -> Self:
        alone = np.where(guides, np.arange(256, dtype=np.uint8), np.uint8(0))
        flat = relabelled(classes[box], alone).ravel()
        places = np.flatnonzero(flat != 0)
        kinds = flat[places]
        order = np.argsort(kinds, kind="stable")
        return cls(box, places[order], np.cumsum(np.bincount(kinds, minlength=256)))

    def drawn(self, count: int) -> _Drawn:
        """Up to `count` evenly drawn voxels of each class."""
        starts = np.insert(self.ends[:-1], 0, 0)
        sizes = np.minimum(self.ends - starts, count)
        picks = [
            np.linspace(a, b - 1, n).astype(np.intp)
            for a, b, n in zip(starts, self.ends, sizes, strict=True)
            if n
        ]
        shape = [s.stop - s.start for s in self.box]
        places = np.unravel_index(self.at[np.concatenate(picks)], shape)
        columns = np.stack(places) + np.array([[s.start] for s in self.box])
        columns = columns.astype(np.float32)
        kinds = np.repeat(np.arange(256, dtype=np.uint8), sizes)
        return _Drawn(np.ascontiguousarray(columns.T), columns, kinds)


class _Mirror:
    """Scores planes given as yaw and roll in degrees and an offset in mm.

    The offset counts from `pivot`, the mean of the structures' points.
    """

    def __init__(
        self,
        classes: npt.NDArray[np.uint8],
        box: Box,
        pivot: npt.NDArray[np.float32],
    ) -> None:
        padded = np.pad(classes[box], 1)
        self._flat = padded.ravel()
        self._strides = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
        self._ends = [(s.start - 1, s.stop) for s in box]  # what lies beyond is background
        self._pivot = pivot.astype(np.float64)

    def plane(self, yaw: float, roll: float, offset: float) -> Plane:
        yaw, roll = np.deg2rad([yaw, roll])
        normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), np.sin(roll)])
        x, y, z = (float(n) for n in normal)
        return Plane((x, y, z), float(normal @ self._pivot + offset))

    def scores(
        self, yaw: float, roll: float, offsets: Sequence[float], drawn: _Drawn
    ) -> list[float]:
        """Share of points whose mirror image has the same class, less a tilt's cost; (O,)."""
        planes = [self.plane(yaw, roll, offset) for offset in offsets]
        normal = np.array(planes[0].normal, np.float32)
        away = np.array([plane.offset for plane in planes], np.float32)
        twice = 2 * (drawn.points @ normal - away[:, None])
        index = np.zeros(twice.shape, np.int32)
        for axis, (stride, (low, high)) in enumerate(zip(self._strides, self._ends, strict=True)):
            mirrored = drawn.columns[axis] - twice * normal[axis]
            np.clip(np.rint(mirrored, out=mirrored), low, high, out=mirrored)
            index += (mirrored.astype(np.int32) - np.int32(low)) * np.int32(stride)
        same = np.count_nonzero(self._flat.take(index) == drawn.kinds, axis=1) / len(drawn.kinds)
        tilt = float((np.array([yaw, roll]) ** 2).sum()) / 25.0**2
        return [float(share) - _TILT_COST * tilt for share in same]
