"""How much of each structure there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.anatomy import FREESURFER_OUTPUT

_LAST_ID = max(ids.right for ids in FREESURFER_OUTPUT.values())


def volumes_mm3(ids: npt.NDArray[np.integer[Any]], spacing_mm: Sequence[float]) -> dict[str, float]:
    """Volume of every answered structure.

    Parameters
    ----------
    ids : (X, Y, Z), the FreeSurfer ids that normbank answers
    spacing_mm : mm (X, Y, Z)

    Returns
    -------
    mm³ by `left-<structure>`, `right-<structure>`, `brain-stem` and `csf`;
    0 where a structure is absent
    """
    counts = np.bincount(ids.ravel(), minlength=_LAST_ID + 1)
    voxel_mm3 = float(np.prod(spacing_mm))
    volumes: dict[str, float] = {}
    for name, answered in FREESURFER_OUTPUT.items():
        if answered.paired:
            volumes[f"left-{name}"] = float(counts[answered.left]) * voxel_mm3
            volumes[f"right-{name}"] = float(counts[answered.right]) * voxel_mm3
        else:
            volumes[name] = float(counts[answered.left]) * voxel_mm3
    return volumes
