"""A picture of a segmentation: three planes of the scan, structures in colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import nibabel.processing
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from normbank.anatomy import FREESURFER_OUTPUT

_nibabel: Any = nibabel  # it has no types for what is used here

COLOURS: Mapping[str, str] = {
    "cerebral-gm": "#b9a2a2",
    "cerebral-wm": "#f2ead0",
    "cerebellum-gm": "#d49a6a",
    "cerebellum-wm": "#f0d6a8",
    "thalamus": "#2ca02c",
    "hippocampus": "#ffd400",
    "amygdala": "#00c8c8",
    "lateral-ventricle": "#5a3ea6",
    "inferior-lateral-ventricle": "#9b7fe0",
    "third-ventricle": "#c2a5ff",
    "fourth-ventricle": "#7f5fd0",
    "caudate": "#3a7bff",
    "putamen": "#ff4fa3",
    "pallidum": "#0b3d91",
    "ventral-dc": "#a0522d",
    "brain-stem": "#8fbf8f",
    "csf": "#7fd3ff",
}
FAINT = frozenset({"cerebral-gm", "cerebral-wm", "cerebellum-gm", "cerebellum-wm", "csf"})
CENTRE = ("thalamus", "putamen", "hippocampus", "caudate")
PLANES = ("sagittal", "coronal", "axial")


def draw_overlay(scan: Path, labels: Path, picture: Path, title: str) -> None:
    """Write a PNG of `labels` over `scan`.

    Both are brought to RAS+ at 1 mm for the eye; the patient's right is on
    the left of the picture (radiological convention).

    Parameters
    ----------
    scan : image file
    labels : FreeSurfer ids on the scan's grid
    picture : the PNG to write
    """
    grey = _upright(scan, order=1)
    ids = _upright(labels, order=0).astype(np.int32)
    ids = ids[tuple(slice(0, n) for n in grey.shape)]
    figure = Figure(figsize=(15, 5.9), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    centre = _centre(ids)
    window = _window(ids)
    for place, plane in enumerate(PLANES):
        axes = figure.add_subplot(1, 3, place + 1)
        _draw_plane(axes, grey, ids, place, centre[place], window)
        axes.set_title(plane, color="white")
    figure.suptitle(title, color="white", fontsize=11)
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in COLOURS.items()],
        loc="outside lower center",
        ncols=7,
        facecolor="black",
        edgecolor="black",
        labelcolor="white",
    )
    figure.savefig(picture, dpi=110)


def _upright(path: Path, order: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """(X, Y, Z) float32 in RAS+ at 1 mm."""
    image = _nibabel.load(path)
    data = np.squeeze(np.asanyarray(image.dataobj)).astype(np.float32)
    upright = _nibabel.as_closest_canonical(_nibabel.Nifti1Image(data, image.affine))
    zooms = np.linalg.norm(upright.affine[:3, :3], axis=0)
    if not np.allclose(zooms, 1.0, atol=0.02):
        upright = _nibabel.processing.resample_to_output(upright, (1.0, 1.0, 1.0), order=order)
        upright = _nibabel.as_closest_canonical(upright)
    assert _nibabel.aff2axcodes(upright.affine) == ("R", "A", "S")
    return np.asarray(upright.dataobj, np.float32)


def _centre(ids: np.ndarray) -> tuple[int, int, int]:
    """Where to cut: off the midline, through the deep structures of one side."""
    left = [FREESURFER_OUTPUT[name].left for name in CENTRE]
    deep = np.argwhere(np.isin(ids, left))
    if not len(deep):
        deep = np.argwhere(ids > 0) if ids.any() else np.array(ids.shape)[None] // 2
    x, y, z = np.median(deep, axis=0).astype(int)
    return int(x), int(y), int(z)


def _window(ids: np.ndarray, margin: int = 12) -> tuple[slice, slice, slice]:
    """The box around the labels, with a margin, voxels."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        labelled = np.flatnonzero((ids > 0).any(axis=others))
        first, last = (labelled[0], labelled[-1]) if len(labelled) else (0, ids.shape[axis] - 1)
        box.append(slice(max(int(first) - margin, 0), int(last) + margin + 1))
    return box[0], box[1], box[2]


def _draw_plane(
    axes: Axes,
    grey: np.ndarray,
    ids: np.ndarray,
    axis: int,
    index: int,
    window: tuple[slice, slice, slice],
) -> None:
    """One slice, anterior or superior up, the patient's right on the left."""
    cut: list[slice | int] = list(window)
    cut[axis] = index
    image, classes = grey[tuple(cut)].T, ids[tuple(cut)].T
    bright = float(np.percentile(grey[ids > 0], 99.5)) if ids.any() else float(grey.max())
    axes.imshow(image, cmap="gray", vmin=0, vmax=max(bright, 1e-6), origin="lower")
    axes.imshow(_paint(classes), origin="lower", interpolation="nearest")
    if axis == 0:
        marks = ("P", "A")
    else:
        axes.invert_xaxis()
        marks = ("R", "L")
    for place, mark in zip((0.02, 0.95), marks, strict=True):
        box = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 2}
        axes.text(place, 0.5, mark, color="white", transform=axes.transAxes, bbox=box)
    axes.set_axis_off()


def _paint(ids: np.ndarray) -> np.ndarray:
    """(H, W) FreeSurfer ids to (H, W, 4) colours; the large tissues stay faint."""
    painted = np.zeros((*ids.shape, 4), np.float32)
    for name, colour in COLOURS.items():
        pair = FREESURFER_OUTPUT[name]
        where = (ids == pair.left) | (ids == pair.right)
        painted[where] = (*to_rgb(colour), 0.22 if name in FAINT else 0.62)
    return painted
