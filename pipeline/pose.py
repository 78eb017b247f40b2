"""How a head lies, found by looking at it from several sides.

Only asked where an answer is no anatomy or shows a head that is turned: a network sees
every fourth slice, first as the head seems to lie, then from all 24 sides of a cube, and
the structures that it names there tell how far the head is turned from that view.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from normbank.anatomy import answered_ids
from normbank.imaging.brain import NetworkSpace, SlicePredictor
from normbank.imaging.intensity import intensity_unit
from normbank.imaging.plausibility import Measured, Pose

_SLICE_MM = 4.0  # between the slices of a look
_COARSE_MM = 8.0  # and of one from the sides of the cube
_SETTLED_DEG = 3.0  # a smaller turn ends the search
_ROUNDS = 4
_GOOD_MM = 5.0  # mean distance of the structures from where they belong
_FEW = 3  # sides of the cube that are looked at more closely
_LEAST_BRAIN_ML = 400.0


class _View(NamedTuple):
    """A head as it was looked at, and how it lies by that; the less `misfit`, the better."""

    pose: Pose
    misfit: float


def find_pose(
    volume: npt.NDArray[np.float32],
    predictor: SlicePredictor,
    space: NetworkSpace,
    guess: Pose | None,
) -> Pose | None:
    """How the head lies in a volume.

    Parameters
    ----------
    volume : (X, Y, Z) RAS+, in the network's spacing
    guess : how it seems to lie

    Returns
    -------
    in mm from the volume's first voxel; None where no view shows the structures in place
    """
    looker = _Looker(volume, predictor, space)
    if guess is not None:
        view = looker.settle(guess)
        if view is not None and view.misfit < _GOOD_MM:
            return view.pose
    views = []
    for rotation in Rotation.create_group("O"):
        view = looker.look(rotation, looker.middle_mm, _COARSE_MM)
        if view is None:
            continue
        views.append(view)
        if view.misfit < _GOOD_MM:
            break
    for first in sorted(views, key=lambda view: view.misfit)[:_FEW]:
        view = looker.settle(first.pose)
        if view is not None and view.misfit < _GOOD_MM:
            return view.pose
    return None


class _Looker:
    """Looks at one volume, turned this way and that."""

    def __init__(
        self, volume: npt.NDArray[np.float32], predictor: SlicePredictor, space: NetworkSpace
    ) -> None:
        self._volume, self._predictor, self._space = volume, predictor, space
        self._ids = np.array(
            [0 if (ids := answered_ids(name)) is None else ids.left for name in space.classes],
            np.uint8,
        )
        self.middle_mm = _middle_of_head(volume) * space.spacing_mm

    def settle(self, pose: Pose) -> _View | None:
        """Look again, each time as the head lay by the last look, until it lies upright."""
        view = None
        for _ in range(_ROUNDS):
            again = self.look(pose.rotation, pose.centre_mm, _SLICE_MM)
            if again is None or (view is not None and again.misfit > view.misfit):
                return view
            turned = (again.pose.rotation * pose.rotation.inv()).magnitude()
            view, pose = again, again.pose
            if np.degrees(turned) < _SETTLED_DEG:
                return view
        return view

    def look(
        self, rotation: Rotation, centre_mm: npt.NDArray[np.float64], every_mm: float
    ) -> _View | None:
        """Look at the head as if it lay by a rotation; how it lies by what is seen."""
        spacing, sizes = np.full(3, self._space.spacing_mm), np.array(self._space.window)
        axis = self._space.slice_axis
        sizes[axis] = round(sizes[axis] * self._space.spacing_mm / every_mm)
        spacing[axis] = every_mm
        matrix = rotation.as_matrix() * spacing / self._space.spacing_mm
        offset = centre_mm / self._space.spacing_mm - matrix @ ((sizes - 1) / 2)
        turned = ndimage.affine_transform(
            self._volume, matrix, offset, tuple(sizes), order=1, mode="constant"
        )
        if not (turned > 0).any():
            return None
        slices = np.moveaxis(turned / intensity_unit(turned, self._space.percentile), axis, 0)
        classes = self._predictor(np.ascontiguousarray(slices, np.float32))
        ids = self._ids[np.moveaxis(classes, 0, axis)]
        measured = Measured.of(ids, spacing)
        seen = measured.pose()
        if seen is None or measured.brain_ml < _LEAST_BRAIN_ML:
            return None
        middle = (sizes - 1) / 2 * spacing
        centre = centre_mm + rotation.apply(seen.centre_mm - middle)
        pose = Pose(rotation * seen.rotation, centre, seen.residual_mm)
        missing = sum(
            1
            for side, ml in measured.volumes_ml.items()
            if not side.startswith("right-") and not ml
        )
        return _View(pose, seen.residual_mm + missing)


def _middle_of_head(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(3,) voxels, the middle of what is bright."""
    sparse = volume[::4, ::4, ::4]
    bright = sparse > 0.3 * intensity_unit(sparse)
    return np.asarray(np.argwhere(bright).mean(0) * 4)
