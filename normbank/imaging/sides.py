"""Left and right, for a network that does not tell them apart.

The mid-sagittal plane is the one in which the labels mirror best onto
themselves; each paired structure is split there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from normbank.anatomy import answered_ids

_GUESS_ANGLES_DEG = np.arange(-25.0, 26.0, 5.0)
_GUESS_OFFSETS_MM = (-8.0, -4.0, 0.0, 4.0, 8.0)
_GUESS_POINTS = 300  # per structure
_FINE_POINTS = 3000
_TILT_COST = 2e-3  # of a mirror score of 1, for a tilt of 25 degrees
_WHOLE = 0.9  # a component of which more lies on one side goes there as a whole
_UNSIDED = "csf"  # neither split nor a guide to the middle
_CEREBRUM = ("cerebral-gm", "cerebral-wm")  # one piece on both sides: always cut


@dataclass(frozen=True, slots=True)
class Plane:
    """Points p in voxels with normal · p = offset; left is below.

    Attributes
    ----------
    normal : unit vector (3,), to the patient's right
    offset : voxels from the first voxel
    """

    normal: tuple[float, float, float]
    offset: float

    def side(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """(X, Y, Z), whether a voxel lies right of the plane."""
        x, y, z = (n * np.arange(k) for n, k in zip(self.normal, shape, strict=True))
        left_to_go = self.offset - (y[:, None] + z)
        return np.asarray(x[:, None, None] >= left_to_go)


def split_sides(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> npt.NDArray[np.int16]:
    """FreeSurfer ids of a class map, paired structures split at the middle.

    Parameters
    ----------
    classes : (X, Y, Z), RAS+, 1 mm
        The head may be tilted by some 25 degrees and lie anywhere.
    names : structures in class order, with `background`

    Returns
    -------
    (X, Y, Z) int16
    """
    plane = midsagittal_plane(classes, names)
    right = plane.side(classes.shape)
    left_ids, right_ids = np.zeros((2, 256), np.int16)
    answered = {number: answered_ids(name) for number, name in enumerate(names)}
    for number, ids in answered.items():
        if ids is not None:
            left_ids[number], right_ids[number] = ids.left, ids.right
    boxes = ndimage.find_objects(classes, max_label=len(names))
    for number, (name, box) in enumerate(zip(names[1:], boxes, strict=False), start=1):
        ids = answered[number]
        paired = ids is not None and ids.paired
        if box is not None and paired and name not in _CEREBRUM:
            _keep_whole(classes[box] == number, right[box])
    return np.where(right, right_ids[classes], left_ids[classes])


def _keep_whole(mask: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> None:
    """Move components that lie nearly on one side there; changes `right`."""
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    on_right = np.bincount(parts[right], minlength=count + 1)
    share = on_right / np.maximum(sizes, 1)
    to_right = share > _WHOLE
    settled = to_right | (share < 1 - _WHOLE)
    settled[0] = False
    moved = settled[parts]
    right[moved] = to_right[parts[moved]]


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
    guides = [i for i, n in enumerate(names) if answered_ids(n) is not None and n != _UNSIDED]
    wanted = np.zeros(256, bool)
    wanted[guides] = True
    at = np.flatnonzero(wanted[classes])
    middle = (np.array(classes.shape) - 1) / 2
    if not len(at):
        return Plane((1.0, 0.0, 0.0), float(middle[0]))
    few, many = (_drawn(classes, at, n) for n in (_GUESS_POINTS, _FINE_POINTS))
    mirror = _Mirror(classes, few[0].mean(axis=0))
    guess = max(
        product(_GUESS_ANGLES_DEG, _GUESS_ANGLES_DEG, _GUESS_OFFSETS_MM),
        key=lambda p: mirror.score(np.array(p), *few),
    )
    simplex = np.array(guess) + np.vstack([np.zeros(3), np.diag([3.0, 3.0, 3.0])])
    found = optimize.minimize(
        lambda p: -mirror.score(p, *many),
        np.array(guess),
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-5, "maxfev": 150},
    )
    return mirror.plane(found.x)


def _drawn(
    classes: npt.NDArray[np.uint8], at: npt.NDArray[np.intp], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Up to `count` evenly drawn voxels of each class: (P, 3) and their classes (P,)."""
    kinds = classes.ravel()[at]
    order = np.argsort(kinds, kind="stable")
    starts = np.flatnonzero(np.diff(kinds[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    picks = [
        order[np.linspace(a, b - 1, min(count, b - a)).astype(np.intp)]
        for a, b in zip(starts, ends, strict=True)
    ]
    chosen = at[np.concatenate(picks)]
    points = np.stack(np.unravel_index(chosen, classes.shape), axis=1)
    return points.astype(np.float32), classes.ravel()[chosen]


class _Mirror:
    """Scores planes given as (yaw in degrees, roll in degrees, offset in mm).

    The offset counts from `pivot`, the mean of the structures' points.
    """

    def __init__(self, classes: npt.NDArray[np.uint8], pivot: npt.NDArray[Any]) -> None:
        self._padded = np.pad(classes, 1)
        self._pivot = pivot.astype(np.float64)

    def plane(self, parameters: npt.NDArray[np.float64]) -> Plane:
        yaw, roll = np.deg2rad(parameters[:2])
        normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), np.sin(roll)])
        x, y, z = (float(n) for n in normal)
        return Plane((x, y, z), float(normal @ self._pivot + parameters[2]))

    def score(
        self,
        parameters: npt.NDArray[np.float64],
        points: npt.NDArray[np.float32],
        kinds: npt.NDArray[np.uint8],
    ) -> float:
        """Share of points whose mirror image has the same class, less a tilt's cost."""
        plane = self.plane(parameters)
        normal = np.array(plane.normal, np.float32)
        distance = points @ normal - np.float32(plane.offset)
        mirrored = points - (2 * distance)[:, None] * normal
        index = np.rint(mirrored).astype(np.intp) + 1
        last = np.array(self._padded.shape) - 1
        x, y, z = np.clip(index, 0, last).T
        same = float((self._padded[x, y, z] == kinds).mean())
        tilt = float((parameters[:2] ** 2).sum()) / 25.0**2
        return same - _TILT_COST * tilt
