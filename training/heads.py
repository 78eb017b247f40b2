"""Label maps become labelled slices: a head of its own, on a scanner of its own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from models.cases import LabelledSlices
from models.spec import BackboneSpec
from normbank.anatomy import labels_to_classes
from normbank.imaging.geometry import Geometry
from normbank.imaging.intensity import divide_by_percentile
from normbank.imaging.scan import Scan
from normbank.imaging.window import Window
from simulate import UPRIGHT_DEFORMATION, deform, scan
from simulate.masking import box_of
from simulate.tissue import brain_mask
from training.families import Family

_nibabel: Any = nibabel  # it has no types for what is used here

MARGIN_MM = 14  # around the network's window, for what a deformation brings in
ASTRAY_MM = 8.0  # how far a service may misjudge the middle of the brain
CROWN_MM = 10.0  # kept above the cerebrum, as the service does

Labels = npt.NDArray[np.int16]
Affine = npt.NDArray[np.float64]


def label_maps(folder: Path) -> list[Path]:
    """Every map of a folder, in the order of their names.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = sorted(folder.glob("*.nii.gz")) + sorted(folder.glob("*.mgz"))
    if not found:
        raise FileNotFoundError(f"no label map (.nii.gz, .mgz) in {folder}")
    return found


@lru_cache(maxsize=32)
def read_head(path: Path, reach: tuple[int, int, int]) -> tuple[Labels, Affine]:
    """A head's labels in RAS+, cut to a box around the brain.

    Parameters
    ----------
    path : ids as `simulate.TISSUE_IDS` lists them, 1 mm
    reach : voxels (X, Y, Z) of the box, at most
    """
    image = _nibabel.as_closest_canonical(_nibabel.load(path))
    labels = np.asanyarray(image.dataobj).round().astype(np.int16)
    low, high = box_of(brain_mask(labels))
    middle = (low + high) // 2
    middle[2] = high[2] + CROWN_MM - reach[2] // 2
    start = np.maximum(middle - np.array(reach) // 2, 0)
    cut = tuple(slice(int(s), int(s) + r) for s, r in zip(start, reach, strict=True))
    moved = np.array(image.affine, np.float64)
    moved[:3, 3] += moved[:3, :3] @ start
    return np.ascontiguousarray(labels[cut]), moved


def draw_case(path: Path, family: Family, spec: BackboneSpec, seed: int) -> LabelledSlices:
    """One simulated scan as the network sees it.

    Parameters
    ----------
    path : a label map
    seed : decides the deformation, the scanner and where the window lies

    Returns
    -------
    LabelledSlices
        Every slice of the window, all classes annotated.
    """
    rng = np.random.default_rng(seed)
    reach = tuple(round(n * spec.spacing_mm) + 2 * MARGIN_MM for n in spec.window)
    labels, affine = read_head(path, (reach[0], reach[1], reach[2]))
    moved = deform(labels, int(rng.integers(2**31)), UPRIGHT_DEFORMATION)
    drawn = scan(moved, affine, family.scanner(rng), int(rng.integers(2**31)))
    geometry = Geometry.of(Scan(drawn.data, drawn.affine), spec.spacing_mm)
    numbers = labels_to_classes(drawn.labels.astype(np.int32), "freesurfer", spec.classes)
    truth = geometry.labels_to_network(numbers, len(spec.classes))
    window = Window(spec.window, _centre(truth, spec, rng))
    images = divide_by_percentile(window.cut(geometry.to_network(drawn.data)), spec.percentile)
    return LabelledSlices(
        np.ascontiguousarray(np.moveaxis(images, spec.slice_axis, 0)),
        np.ascontiguousarray(np.moveaxis(window.cut(truth), spec.slice_axis, 0)),
        np.ones(len(spec.classes), bool),
    )


def _centre(
    truth: npt.NDArray[np.uint8], spec: BackboneSpec, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Where a service would put the window, give or take."""
    fluid = spec.classes.index("csf") if "csf" in spec.classes else 0
    low, high = box_of((truth > 0) & (truth != fluid))
    centre = (low + high) / 2
    centre[2] = high[2] + CROWN_MM / spec.spacing_mm - spec.window[2] / 2
    return np.asarray(centre + rng.uniform(-1, 1, 3) * ASTRAY_MM / spec.spacing_mm)
