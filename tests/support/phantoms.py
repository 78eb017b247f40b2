"""Scans of the drawn head, as files that a client could send."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import nibabel
import numpy as np

from normbank.imaging.nifti import write_scan
from normbank.imaging.scan import Scan
from simulate import SCANNERS, scan
from simulate.phantom import draw_head, head_affine

SPACING_MM = 2.0
SHAPE = (96, 112, 96)


@dataclass(frozen=True)
class PhantomCase:
    """A scan as `.nii.gz` bytes, and its labels (FreeSurfer ids) likewise."""

    scan: bytes
    labels: bytes


@cache
def phantom_case(seed: int, scanner: str = "d1-t1w-3t") -> PhantomCase:
    """The head of one simulated person on one simulated scanner."""
    labels = draw_head(seed, SHAPE, SPACING_MM)
    drawn = scan(labels, head_affine(SHAPE, SPACING_MM), SCANNERS[scanner], seed)
    image = Scan(drawn.data, drawn.affine)
    ids = np.where(drawn.labels < 500, drawn.labels, 0).astype(np.int16)
    volume = nibabel.Nifti1Image(ids, drawn.affine)
    return PhantomCase(write_scan(image), volume.to_bytes())
