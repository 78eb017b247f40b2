"""Simulated scans in the network's space; no torch, so that processes start fast."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import nibabel
import numpy as np
import numpy.typing as npt

from normbank.anatomy import labels_to_classes
from normbank.imaging.geometry import Geometry
from normbank.imaging.intensity import divide_by_percentile
from normbank.imaging.scan import Scan
from normbank.imaging.window import Window
from simulate import SCANNERS, Scanner, deform
from simulate import scan as acquire
from simulate.masking import box_of
from simulate.phantom import draw_head
from simulate.tissue import brain_mask

Spacing = tuple[float, float, float]
Labels = npt.NDArray[np.int16]
_D = TypeVar("_D", bound=np.generic)
_HEAD_MM = (192.0, 228.0, 228.0)  # box of a drawn head
_nibabel: Any = nibabel  # it has no types for what is used here


@dataclass(frozen=True)
class PlannedScan:
    """One scan to be simulated.

    Attributes
    ----------
    scanner : one of `simulate.SCANNERS`
    anatomy : name of the head
    seed : of its deformation and of its scan
    """

    domain: str
    scanner: str
    part: str
    number: int
    anatomy: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.domain}-{self.part}-{self.number:02d}"


@dataclass(frozen=True)
class Space:
    """The network's space, and where its anatomy comes from.

    Attributes
    ----------
    labelmaps : folder of `head_NN.nii.gz`; None: heads drawn by code
    spacing_mm : isotropic; a whole multiple of the label maps' spacing
    window : voxels (X, Y, Z) around the brain
    classes : in the network's order
    slice_axis : that the slices are stacked along
    percentile : per cent; intensities are divided by it
    """

    labelmaps: Path | None
    spacing_mm: float
    window: tuple[int, int, int]
    classes: tuple[str, ...]
    slice_axis: int = 2
    percentile: float = 98.0


@dataclass(frozen=True)
class Slices:
    """One simulated scan with its truth.

    Attributes
    ----------
    images : N H W float16, intensities by percentile
    classes : N H W uint8
    """

    images: npt.NDArray[np.float16]
    classes: npt.NDArray[np.uint8]


def simulate(planned: PlannedScan, space: Space) -> Slices:
    """Deform a head, put the window around its brain, scan what is inside.

    The window's centre is that of the labels' brain, in every domain alike:
    finding the brain is no part of what is compared.

    Raises
    ------
    FileNotFoundError
        If the head has no label map.
    """
    labels = _anatomy(planned.anatomy, space.labelmaps, space.spacing_mm)
    spacing = (space.spacing_mm,) * 3
    labels = deform(labels, planned.seed, spacing_mm=spacing).astype(np.int16)
    low, high = box_of(brain_mask(labels))
    labels = Window(space.window, (low + high) / 2).cut(labels)
    affine = np.diag([*spacing, 1.0])
    scanner = on_grid(SCANNERS[planned.scanner], space.spacing_mm)
    drawn = acquire(labels, affine, scanner, planned.seed + 1)
    volume = _in_network(Scan(drawn.data, drawn.affine), space)
    classes = labels_to_classes(labels, "freesurfer", space.classes)
    images = _stacked(divide_by_percentile(volume, space.percentile), space.slice_axis)
    return Slices(images.astype(np.float16), _stacked(classes, space.slice_axis))


def on_grid(scanner: Scanner, spacing_mm: float) -> Scanner:
    """A scanner whose voxels are nowhere finer than the labels'."""
    if scanner.spacing_mm is None:
        return scanner
    x, y, z = (max(length, spacing_mm) for length in scanner.spacing_mm)
    return replace(scanner, spacing_mm=(x, y, z))


def _in_network(scan: Scan, space: Space) -> npt.NDArray[np.float32]:
    volume = Geometry.of(scan, space.spacing_mm).to_network(scan.data)
    return Window(space.window, (np.array(volume.shape)) // 2).cut(volume)


def _stacked(volume: npt.NDArray[_D], axis: int) -> npt.NDArray[_D]:
    return np.ascontiguousarray(np.moveaxis(volume, axis, 0))


@lru_cache(maxsize=16)
def _anatomy(name: str, labelmaps: Path | None, spacing_mm: float) -> Labels:
    """(X, Y, Z) raw ids, RAS+, in the network's spacing."""
    if labelmaps is None:
        x, y, z = (round(length / spacing_mm) for length in _HEAD_MM)
        return draw_head(int(name[-2:]), (x, y, z), spacing_mm).astype(np.int16)
    image = _nibabel.as_closest_canonical(_nibabel.load(labelmaps / f"{name}.nii.gz"))
    step = max(1, round(spacing_mm / float(image.header.get_zooms()[0])))
    thinned = np.asanyarray(image.dataobj)[step // 2 :: step, step // 2 :: step, step // 2 :: step]
    return np.ascontiguousarray(thinned).astype(np.int16)


def simulate_into(planned: PlannedScan, space: Space, folder: Path) -> str:
    """Simulate one scan into a file; its name."""
    scan = simulate(planned, space)
    path = _path(folder, planned.name)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, images=scan.images, classes=scan.classes)
    partial.rename(path)
    return planned.name


def read_slices(planned: PlannedScan, folder: Path) -> Slices:
    """A scan that `simulate_into` has written."""
    with np.load(_path(folder, planned.name)) as arrays:
        return Slices(arrays["images"], arrays["classes"])


def missing(scans: Iterable[PlannedScan], folder: Path) -> list[PlannedScan]:
    """The scans that have no file yet."""
    return [scan for scan in scans if not _path(folder, scan.name).exists()]


def simulate_all(
    scans: Sequence[PlannedScan], space: Space, folder: Path, workers: int
) -> Iterator[str]:
    """Simulate what is missing; yields the name of every finished scan.

    Parameters
    ----------
    workers : processes; 0: this one. Their random numbers do not depend on it
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = missing(scans, folder)
    if not workers:
        yield from (simulate_into(scan, space, folder) for scan in todo)
        return
    with processes(workers) as pool:
        for future in [pool.submit(simulate_into, scan, space, folder) for scan in todo]:
            yield future.result()


def processes(workers: int, start: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Processes that share nothing with this one, not even its CUDA context."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npz"
