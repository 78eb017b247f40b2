"""What scans take is foreseen, and whole volumes are not copied on the way."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from normbank.anatomy import labels_to_classes
from normbank.config import Settings
from normbank.errors import GeometryError
from normbank.imaging.geometry import Geometry
from normbank.imaging.headers import check_affine
from normbank.imaging.memory import labelled_bytes, needed_bytes, reading_bytes
from normbank.imaging.nifti import peek_header, read_labels, read_scan
from normbank.imaging.resample import Axis, gaussian_axis, linear_axis, resample_volume
from normbank.imaging.scan import Limits, Scan

LIMITS = Limits.of(Settings())


def peak_bytes(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def axis_of(length: int, spacing_mm: float) -> Axis | None:
    count = round(length * spacing_mm)
    if spacing_mm == 1:
        return None
    return (gaussian_axis if spacing_mm < 1 else linear_axis)(count, length, 1 / spacing_mm)


def resampled_as_a_whole(volume: np.ndarray, axes: tuple[Axis | None, ...]) -> np.ndarray:
    for number, axis in enumerate(axes):
        if axis is not None:
            volume = np.moveaxis(np.tensordot(axis.matrix(), volume, axes=(1, number)), 0, number)
    return np.ascontiguousarray(volume, np.float32)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((200, 220, 200), (0.5, 0.5, 0.5)),
        ((200, 240, 40), (0.9, 0.9, 5)),
        ((400, 400, 30), (0.4, 0.4, 7)),
        ((40, 300, 300), (4, 0.5, 0.5)),
        ((220, 250, 160), (1, 1, 1.2)),
        ((220, 250, 160), (1, 0.7, 1)),
        ((150, 180, 160), (1.2, 1, 0.8)),
    ],
)
def test_slabs_give_the_bits_of_a_whole_volume(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    stored = np.random.default_rng(1).random(shape[::-1], np.float32)
    volume = stored.T[::-1, :, ::-1]  # as files lie in memory, turned
    x, y, z = (axis_of(n, s) for n, s in zip(shape, spacing_mm, strict=True))
    expected = resampled_as_a_whole(np.ascontiguousarray(volume), (x, y, z))
    np.testing.assert_array_equal(resample_volume(volume, (x, y, z)), expected)


def test_half_a_millimetre_is_resampled_without_a_copy_of_the_scan() -> None:
    scan = Scan(np.zeros((320, 320, 320), np.float32, order="F"), np.diag([0.5, 0.5, 0.5, 1]))
    geometry = Geometry.of(scan, 1.0)
    assert peak_bytes(lambda: geometry.to_network(scan.data)) < scan.data.nbytes


def stored(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    path.write_bytes(gzip.compress(nib.Nifti1Image(data, affine).to_bytes(), 1))
    return path


def test_wide_voxels_are_read_into_narrow_ones_piece_by_piece(tmp_path: Path) -> None:
    data = np.zeros((200, 200, 200), np.float64)
    data[50:150, 50:150, 50:150] = 900
    path = stored(tmp_path / "scan", data - 100, np.eye(4))
    peak = peak_bytes(lambda: read_scan(path, LIMITS))
    assert peak < 1.5 * reading_bytes(peek_header(path, LIMITS)) < 1.6 * data.nbytes
    assert peak_bytes(lambda: read_labels(path, LIMITS)) < 1.2 * data.nbytes


def test_labels_become_classes_without_wide_indices() -> None:
    labels = np.full((160, 160, 160), 17, np.int32, order="F")
    peak = peak_bytes(
        lambda: labels_to_classes(labels, "freesurfer", ("background", "hippocampus"))
    )
    assert peak < labels.nbytes / 2


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((360, 360, 360), (0.5, 0.5, 0.5)), ((240, 240, 40), (1, 1, 5))]
)
def test_what_the_way_there_and_back_takes_is_foreseen(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    scan = Scan(np.zeros(shape, np.float32, order="F"), np.diag([*spacing_mm, 1.0]))
    geometry = Geometry.of(scan, 1.0)

    def work() -> None:
        volume = geometry.to_network(scan.data)
        head = (volume.shape[0] // 4, volume.shape[0] // 2)
        labels = np.zeros(volume.shape, np.uint8)
        labels[head[0] : head[1]] = 17
        geometry.labels_to_scan(labels, np.int16)

    foreseen = needed_bytes(scan, 1.0) - scan.data.nbytes
    assert peak_bytes(work) < foreseen < 10 * scan.data.nbytes + (400 << 20)
    assert labelled_bytes(scan, 1.0) > needed_bytes(scan, 1.0)


def test_the_estimate_grows_with_what_a_thick_slice_is_stretched_to() -> None:
    def header(thickness_mm: float) -> Any:
        return SimpleNamespace(shape=(300, 300, 20), affine=np.diag([1, 1, thickness_mm, 1.0]))

    assert needed_bytes(header(40), 1.0) > 3 * needed_bytes(header(4), 1.0)


@pytest.mark.parametrize("spacing_mm", [(0.9, 0.9, 5), (0.4, 0.4, 7), (0.25, 0.25, 10)])
def test_thick_slices_are_heads(spacing_mm: tuple[float, float, float]) -> None:
    shape = tuple(round(200 / s) for s in spacing_mm)
    check_affine(np.diag([*spacing_mm, 1.0]), (shape[0], shape[1], shape[2]), LIMITS)


@pytest.mark.parametrize("spacing_mm", [(300, 0.3, 0.3), (0.3, 30, 0.3)])
def test_rods_are_no_voxels_of_a_head(spacing_mm: tuple[float, float, float]) -> None:
    with pytest.raises(GeometryError, match="times as long as it is wide") as refused:
        check_affine(np.diag([*spacing_mm, 1.0]), (3, 300, 300), LIMITS)
    assert refused.value.code == "too_anisotropic"
