"""The same voxels with their axes in another order."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from normbank.imaging.scan import Grid, LabelVolume

_orientations: Any = nib.orientations  # nibabel has no types for it


def reordered_like(labels: LabelVolume, grid: Grid) -> LabelVolume:
    """Labels with their axes permuted and turned round so that they run as those of a grid.

    Converters of DICOM each choose an order of their own for the voxels of a series; no
    voxel's place in the world changes here, and no value.

    Parameters
    ----------
    labels : (X, Y, Z)
    grid : whose axes are wanted
    """
    between = np.linalg.inv(grid.affine) @ labels.affine
    turned = _orientations.io_orientation(between)
    if np.isnan(turned).any():
        return labels  # no axis fits: the check of grids says what is wrong
    data = np.ascontiguousarray(_orientations.apply_orientation(labels.data, turned))
    affine = labels.affine @ _orientations.inv_ornt_aff(turned, labels.data.shape)
    return LabelVolume(data, affine)
