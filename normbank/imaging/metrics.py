"""How well two segmentations agree, in space and in mm.

Rules for empty structures: empty in both is left out (None), empty in exactly
one scores Dice 0 and the length of the volume's diagonal as distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from normbank.anatomy import EVALUATED, classes_of
from normbank.imaging.masks import box_of

Spacing = tuple[float, float, float]


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float | None:
    """Dice overlap of two masks; None when both are empty.

    Parameters
    ----------
    a, b : (X, Y, Z)
    """
    size = int(a.sum()) + int(b.sum())
    return None if size == 0 else 2 * int((a & b).sum()) / size


def dice_by_structure(
    answer: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    classes: Sequence[str],
    names: Sequence[str] = EVALUATED,
) -> dict[str, float | None]:
    """Dice of structures and groups, both sides together; None where one is in neither.

    Parameters
    ----------
    answer, reference : (X, Y, Z) numbers of `classes`
    names : of structures and groups
    """
    numbers = np.arange(len(classes))
    members = {name: np.isin(numbers, classes_of(name, classes)) for name in names}
    return {name: dice(of[answer], of[reference]) for name, of in members.items()}


def hd95_mm(
    a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], spacing_mm: Spacing
) -> float | None:
    """95th percentile of the distances between two surfaces, the larger way.

    Parameters
    ----------
    a, b : (X, Y, Z)
    spacing_mm : (X, Y, Z)

    Returns
    -------
    mm, between voxel centres; None when both masks are empty
    """
    if not a.any() and not b.any():
        return None
    if not a.any() or not b.any():
        return float(np.linalg.norm(np.array(a.shape) * spacing_mm))
    box = box_of(a | b)
    ours, theirs = (_surface(np.pad(mask[box], 1), spacing_mm) for mask in (a, b))
    there, back = _distances(ours, theirs), _distances(theirs, ours)
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface(mask: npt.NDArray[np.bool_], spacing_mm: Spacing) -> npt.NDArray[np.float64]:
    """(P, 3) mm: the voxels of a mask that touch what is outside of it."""
    touching = mask & ~ndimage.binary_erosion(mask)
    return np.asarray(np.argwhere(touching) * np.array(spacing_mm), np.float64)


def _distances(
    start: npt.NDArray[np.float64], goal: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(P,) mm, from every point of `start` to the nearest one of `goal`."""
    return np.asarray(KDTree(goal).query(start, workers=-1)[0])
