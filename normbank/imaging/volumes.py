"""How much of each structure there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.anatomy import FREESURFER_OUTPUT
from normbank.imaging.masks import box_of, counted

_LAST_ID = max(ids.right for ids in FREESURFER_OUTPUT.values())


def volumes_mm3(
    ids: npt.NDArray[np.integer[Any]], affine: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Volume of every answered structure.

    Parameters
    ----------
    ids : (X, Y, Z), the FreeSurfer ids that normbank answers
    affine : (4, 4), voxel to mm; its axes need not be perpendicular

    Returns
    -------
    mm³ by `left-<structure>`, `right-<structure>`, `brain-stem` and `csf`;
    0 where a structure is absent
    """
    counts = counted(ids[box_of(ids)], _LAST_ID + 1)
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    volumes: dict[str, float] = {}
    for name, answered in FREESURFER_OUTPUT.items():
        if answered.paired:
            volumes[f"left-{name}"] = float(counts[answered.left]) * voxel_mm3
            volumes[f"right-{name}"] = float(counts[answered.right]) * voxel_mm3
        else:
            volumes[name] = float(counts[answered.left]) * voxel_mm3
    return volumes
