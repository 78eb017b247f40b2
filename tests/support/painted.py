"""A brain of spheres where its structures belong, painted so that a rule can read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from normbank.anatomy import FREESURFER_OUTPUT, STRUCTURES
from normbank.imaging.plausibility import side_names
from normbank.imaging.reference_anatomy import REFERENCES
from normbank.imaging.scan import Scan

SPACING_MM = 1.5
SHAPE = (128, 128, 128)
MIDDLE = (np.array(SHAPE) - 1) / 2
SPACE = SimpleNamespace(
    classes=STRUCTURES,
    spacing_mm=SPACING_MM,
    window=(112, 112, 96),
    percentile=98.0,
    slice_axis=2,
)
# White matter is the brightest: it fills so much of the window that its percentile is white.
_WHITE, _LAST = STRUCTURES.index("cerebral-wm"), len(STRUCTURES) - 1
_SWAPPED = np.arange(len(STRUCTURES), dtype=np.uint8)
_SWAPPED[[_WHITE, _LAST]] = _LAST, _WHITE


def painted_brain() -> npt.NDArray[np.uint8]:
    """Class numbers (X, Y, Z) on axes to the right, to the front and up."""
    classes = np.zeros(SHAPE, np.uint8)
    places = np.indices(SHAPE).transpose(1, 2, 3, 0)
    sizes_ml = {name: (of.least_ml * of.greatest_ml) ** 0.5 for name, of in REFERENCES.items()}
    sizes_ml["cerebral-gm"] += sizes_ml["cerebral-wm"]  # which is painted over it
    for name in sorted(sizes_ml, key=lambda name: -sizes_ml[name]):  # the small ones over the large
        reference = REFERENCES[name]
        for side, _ in side_names(name, FREESURFER_OUTPUT[name]):
            x = -reference.x if side.startswith("left-") else reference.x
            centre = MIDDLE + np.array([x, reference.y, reference.z]) / SPACING_MM
            radius = (3000 * sizes_ml[name] / (4 * np.pi)) ** (1 / 3) / SPACING_MM
            inside = ((places - centre) ** 2).sum(-1) < radius**2
            classes[inside] = STRUCTURES.index(name)
    return classes


def turned(classes: npt.NDArray[np.uint8], rotation: Rotation) -> npt.NDArray[np.uint8]:
    """The brain turned about the volume's middle."""
    matrix = rotation.inv().as_matrix()
    back = ndimage.affine_transform(classes, matrix, MIDDLE - matrix @ MIDDLE, order=0)
    return np.asarray(back)


def scan_of(classes: npt.NDArray[np.uint8]) -> Scan:
    """A scan as bright as its classes' numbers."""
    return Scan(_SWAPPED[classes].astype(np.float32), np.diag([SPACING_MM] * 3 + [1.0]))


def read_classes(
    slices: npt.NDArray[np.float32], *, consecutive: bool = False
) -> npt.NDArray[np.uint8]:
    """A network that needs no learning, and does not care how a head lies."""
    return _SWAPPED[np.clip(np.rint(slices * _LAST), 0, _LAST).astype(np.uint8)]


def nearest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn volumes without blur, which would look like other classes to `read_classes`."""
    real = ndimage.affine_transform

    def transform(*arguments: Any, **options: Any) -> Any:
        return real(*arguments, **{**options, "order": 0, "prefilter": False})

    monkeypatch.setattr(ndimage, "affine_transform", transform)
