"""Label maps become labelled slices: a head of its own, on a scanner of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

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
from simulate import UPRIGHT_DEFORMATION, Scanner
from simulate.acquisition import scan_codes, spacing_of
from simulate.deform import Warp
from simulate.fields import Box, one_thread
from simulate.masking import box_of, strip_reach_mm
from simulate.noise import polar_noise
from simulate.tissue import IDS, Codes, brain_of, encode, look_up
from training.families import Family

_nibabel: Any = nibabel  # it has no types for what is used here

MARGIN_MM = 14  # around the network's window, for what a deformation brings in
ASTRAY_MM = 8.0  # how far a service may misjudge the middle of the brain
CROWN_MM = 10.0  # kept above the cerebrum, as the service does
BORDER_MM = 3.0  # scanned around the window, for what blur and sampling bring in
GLANCE = 2  # every which voxel is looked at to find the brain
CORE_BELOW_MM = np.array([0.0, 0.0, 4.0])  # of the window's middle, see `pipeline.identify.core`

Affine = npt.NDArray[np.float64]
Voxels = npt.NDArray[np.float64]
D = TypeVar("D", bound=np.generic)


@dataclass(frozen=True)
class Head:
    """A label map around the brain.

    Attributes
    ----------
    codes : (X, Y, Z) uint8, see `simulate.tissue.encode`; RAS+
    affine : (4, 4), voxel to mm
    """

    codes: Codes
    affine: Affine


def label_maps(folder: Path) -> list[Path]:
    """Every map of a folder, in the order of their names.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    paths = sorted(folder.glob("*.nii.gz")) + sorted(folder.glob("*.mgz"))
    if not paths:
        raise FileNotFoundError(f"no label map (.nii.gz, .mgz) in {folder}")
    return paths


@lru_cache(maxsize=32)
def read_head(path: Path, reach: tuple[int, int, int]) -> Head:
    """A head in RAS+, cut to a box around the brain.

    Parameters
    ----------
    path : ids as `simulate.TISSUE_IDS` lists them, 1 mm
    reach : voxels (X, Y, Z) of the box, at most
    """
    image = _nibabel.as_closest_canonical(_nibabel.load(path))
    codes = encode(np.asanyarray(image.dataobj).round().astype(np.int16))
    low, high = box_of(brain_of(codes))
    middle = (low + high) // 2
    middle[2] = high[2] + CROWN_MM - reach[2] // 2
    start = np.maximum(middle - np.array(reach) // 2, 0)
    cut = tuple(slice(int(s), int(s) + r) for s, r in zip(start, reach, strict=True))
    moved = np.array(image.affine, np.float64)
    moved[:3, 3] += moved[:3, :3] @ start
    return Head(np.ascontiguousarray(codes[cut]), moved)


@one_thread
def draw_case(path: Path, family: Family, spec: BackboneSpec, seed: int) -> LabelledSlices:
    """One simulated scan as the network sees it.

    Only what the window shows is deformed and scanned.

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
    head = read_head(path, (reach[0], reach[1], reach[2]))
    warp = Warp(head.codes.shape, int(rng.integers(2**31)), UPRIGHT_DEFORMATION)
    scanner = family.scanner(rng)
    brain = _brain_box(head, warp)
    centre = _centre(brain, head, spec, rng)
    box = _scanned(brain, centre, head, scanner, spec)
    start = np.array([part.start for part in box])
    affine = head.affine @ _moved(start)
    # Its field of view is cut already, and its gain divided away below.
    scanner = replace(scanner, field_mm=None, gain=1.0)
    drawn = scan_codes(warp.of(head.codes, box), affine, scanner, rng, polar_noise)
    geometry = Geometry.of(Scan(drawn.data, drawn.affine), spec.spacing_mm)
    truth = geometry.labels_to_network(
        _classes(drawn.labels.astype(np.uint8, copy=False), spec), len(spec.classes)
    )
    in_mm = head.affine @ np.append(centre, 1)
    window = Window(spec.window, (np.linalg.inv(geometry.network_affine) @ in_mm)[:3])
    images = divide_by_percentile(window.cut(geometry.to_network(drawn.data)), spec.percentile)
    return LabelledSlices(
        _stacked(images, spec.slice_axis),
        _stacked(window.cut(truth), spec.slice_axis),
        np.ones(len(spec.classes), bool),
    )


def _brain_box(head: Head, warp: Warp) -> tuple[Voxels, Voxels]:
    """Where the deformed brain begins and ends, to a voxel."""
    every = slice(None, None, GLANCE)
    low, high = box_of(brain_of(warp.of(head.codes, (every, every, every))))
    missed = np.float64(GLANCE - 1) / 2  # of the voxels between two that are looked at, on average
    return low * GLANCE - missed, (high - 1) * GLANCE + 1 + missed


def _centre(
    brain: tuple[Voxels, Voxels], head: Head, spec: BackboneSpec, rng: np.random.Generator
) -> Voxels:
    """Where a service would put the window's middle, give or take; voxels of the head."""
    spacing = np.array(spacing_of(head.affine))
    low, high = brain
    centre = (low + high) / 2
    centre[2] = high[2] + (CROWN_MM - spec.window[2] / 2 * spec.spacing_mm) / spacing[2]
    return np.asarray(centre + rng.uniform(-1, 1, 3) * ASTRAY_MM / spacing)


def _scanned(
    brain: tuple[Voxels, Voxels],
    centre: Voxels,
    head: Head,
    scanner: Scanner,
    spec: BackboneSpec,
) -> Box:
    """The part of the head that the scanner sees, and the window shows."""
    spacing = np.array(spacing_of(head.affine))
    half = (np.array(spec.window) * spec.spacing_mm / 2 + BORDER_MM) / spacing
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, head.codes.shape)
    if scanner.field_mm is not None:
        middle, half = (brain[0] + brain[1]) / 2, np.array(scanner.field_mm) / spacing / 2
        low, high = np.maximum(low, middle - half), np.minimum(high, middle + half)
    if scanner.strip_mm is not None:
        reach = (strip_reach_mm(scanner.strip_mm) + BORDER_MM) / spacing
        low, high = np.maximum(low, brain[0] - reach), np.minimum(high, brain[1] + reach)
    x, y, z = (slice(int(a), int(np.ceil(b))) for a, b in zip(low, high, strict=True))
    return x, y, z


def _classes(codes: Codes, spec: BackboneSpec) -> npt.NDArray[np.uint8]:
    return look_up(labels_to_classes(np.array(IDS), "freesurfer", spec.classes), codes)


def _stacked(volume: npt.NDArray[D], axis: int) -> npt.NDArray[D]:
    """(N, H, W): slices along an axis, turned row by row, as a cache wants it."""
    slices = np.moveaxis(volume, axis, 0)
    stacked = np.empty(slices.shape, volume.dtype)
    for row in range(slices.shape[1]):
        stacked[:, row] = slices[:, row]
    return stacked


def _moved(start: npt.NDArray[np.intp]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = start
    return matrix


@one_thread
def draw_core(
    path: Path, scanner: Scanner, spec: BackboneSpec, shape: tuple[int, int, int], seed: int
) -> npt.NDArray[np.float32]:
    """The middle of a simulated head, in units of the brightest tissue.

    Parameters
    ----------
    path : a label map
    spec : its window's middle is that of the box
    shape : mm (X, Y, Z) of the box
    seed : decides the deformation, the noise and how far the middle is missed

    Returns
    -------
    (X, Y, Z) float32, RAS+, 1 mm
    """
    rng = np.random.default_rng(seed)
    reach = tuple(round(n * spec.spacing_mm) + 2 * MARGIN_MM for n in spec.window)
    head = read_head(path, (reach[0], reach[1], reach[2]))
    warp = Warp(head.codes.shape, int(rng.integers(2**31)), UPRIGHT_DEFORMATION)
    centre = _centre(_brain_box(head, warp), head, spec, rng) - CORE_BELOW_MM
    half = np.array(shape) / 2 + BORDER_MM
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, head.codes.shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    scanner = replace(scanner, field_mm=None, strip_mm=None, deface=False, gain=1.0)
    affine = head.affine @ _moved(low.astype(np.intp))
    drawn = scan_codes(warp.of(head.codes, (x, y, z)), affine, scanner, rng, polar_noise)
    geometry = Geometry.of(Scan(drawn.data, drawn.affine), 1.0)
    in_mm = head.affine @ np.append(centre, 1)
    window = Window(shape, (np.linalg.inv(geometry.network_affine) @ in_mm)[:3])
    return window.cut(geometry.to_network(drawn.data))
