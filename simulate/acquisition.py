"""Labels become a scan, in the order in which nature and scanner act."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from simulate.fields import (
    FWHM_PER_SIGMA,
    SmoothField,
    along_axes,
    blur,
    centres,
    sampling_matrix,
)
from simulate.masking import box_of, face_mask, field_of_view, stripping_mask
from simulate.scanner import Scanner
from simulate.tissue import TISSUES, Array, Labels, tissue_of

Affine = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

SHADED = ("thalamus", "putamen", "pallidum", "ventral-dc")
SHADE_MM = 3.0  # sigma of what counts as around
RIMMED = ("caudate", "putamen", "pallidum", "hippocampus", "amygdala")
RIM_MM = 1.0  # how far a rim reaches, as a sigma


@dataclass(frozen=True)
class SimulatedScan:
    """A scan and its truth on one grid.

    Attributes
    ----------
    data : (X, Y, Z) float32, scanner units
    affine : (4, 4) float64, voxel to mm
    labels : (X, Y, Z) integers, raw ids
    """

    data: Array
    affine: Affine
    labels: Labels

    @property
    def spacing_mm(self) -> Spacing:
        return spacing_of(self.affine)


def scan(labels: Labels, affine: Affine, scanner: Scanner, seed: int) -> SimulatedScan:
    """Scan a head.

    Parameters
    ----------
    labels : (X, Y, Z) integers, raw ids of a whole head, RAS+
    affine : (4, 4), voxel to mm
    scanner : its contrast must know every tissue
    seed : decides everything that is drawn

    Returns
    -------
    SimulatedScan
        On the scanner's own grid: its spacing, its field of view.

    Raises
    ------
    ValueError
        If a label id has no tissue.

    Notes
    -----
    Intensities by tissue, then blur, follow Billot et al., Med Image Anal
    86:102789, 2023.
    """
    rng = np.random.default_rng(seed)
    affine = np.asarray(affine, np.float64)
    if scanner.field_mm is not None:
        cut = field_of_view(labels, spacing_of(affine), scanner.field_mm)
        affine = affine @ _shift([c.start for c in cut])
        labels = labels[cut]
    labels = np.ascontiguousarray(labels)
    signal = _tissue_signal(labels, spacing_of(affine), scanner, rng)
    signal, labels, affine = _sampled(signal, labels, affine, scanner)
    signal = _received(signal, scanner, rng)
    _leave_out(signal, labels, spacing_of(affine), scanner, rng)
    signal *= np.float32(scanner.gain)
    return SimulatedScan(signal, affine, labels)


def spacing_of(affine: Affine) -> Spacing:
    """Length of the affine's columns: (X, Y, Z) mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def _tissue_signal(
    labels: Labels, spacing_mm: Spacing, scanner: Scanner, rng: np.random.Generator
) -> Array:
    """Tissue means with this scan's jitter, texture inside tissues, bias field."""
    brightness = [scanner.contrast[name] for name in TISSUES]
    jitter = 1 + scanner.jitter * rng.standard_normal(len(TISSUES))
    means = np.array([b.mean for b in brightness]) * jitter
    spreads = np.array([b.spread for b in brightness], np.float32)
    tissue = tissue_of(labels)
    signal: Array = SmoothField(
        labels.shape, [max(scanner.texture_mm / s, 1) for s in spacing_mm], rng
    ).volume()
    signal *= spreads[tissue]
    flat = means.astype(np.float32)[tissue]
    if scanner.blend > 0:
        _shade_nuclei(flat, tissue, spacing_mm, scanner.blend, rng)
    if scanner.rim > 0:
        _grey_rims(flat, tissue, spacing_mm, scanner.rim, rng)
    signal += flat
    np.clip(signal, 0, None, out=signal)
    if scanner.bias > 0:
        field = SmoothField(labels.shape, [scanner.bias_mm / s for s in spacing_mm], rng).volume()
        field *= np.float32(scanner.bias)
        signal *= np.exp(field, out=field)
    return signal


def _shade_nuclei(
    flat: Array,
    tissue: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    blend: float,
    rng: np.random.Generator,
) -> None:
    """Let each deep nucleus take on some of what lies around it; changes `flat`."""
    around = blur(flat, [SHADE_MM / s for s in spacing_mm])
    for name in SHADED:
        share = np.float32(blend * rng.random())
        inside = tissue == TISSUES.index(name)
        flat[inside] += share * (around[inside] - flat[inside])


def _grey_rims(
    flat: Array,
    tissue: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    rim: float,
    rng: np.random.Generator,
) -> None:
    """Let white matter beside a nucleus look like it; changes `flat`.

    Labels of grey nuclei are drawn inside the border that one sees: voxels
    that hold a little white matter are counted as white matter.
    """
    sigma = [RIM_MM / s for s in spacing_mm]
    nuclei = np.isin(tissue, [TISSUES.index(name) for name in RIMMED])
    low, high = box_of(nuclei)
    reach = [math.ceil(3 * s) for s in sigma]
    box = tuple(slice(max(a - r, 0), b + r) for a, b, r in zip(low, high, reach, strict=True))
    signal, inside = flat[box], tissue[box]
    white = inside == TISSUES.index("cerebral-wm")
    beside = ndtr(-0.5 * min(spacing_mm) / RIM_MM)  # what a voxel at a flat border has
    for name in RIMMED:
        share = rim * rng.random() / beside
        nucleus = inside == TISSUES.index(name)
        if not nucleus.any():
            continue
        weight = np.minimum(share * blur(nucleus.astype(np.float32), sigma)[white], 1)
        signal[white] += weight * (signal[nucleus].mean() - signal[white])


def _sampled(
    signal: Array, labels: Labels, affine: Affine, scanner: Scanner
) -> tuple[Array, Labels, Affine]:
    """Blur by point spread and slice profile, then sample on the scanner's grid."""
    given = spacing_of(affine)
    wanted = scanner.spacing_mm or given
    profile = scanner.slice_mm or wanted
    at = [centres(n, w / g) for n, w, g in zip(labels.shape, wanted, given, strict=True)]
    # The labels' voxels count as one voxel of the slice profile already.
    fwhm = [
        np.sqrt(scanner.blur_mm**2 + max(p**2 - g**2, 0))
        for p, g in zip(profile, given, strict=True)
    ]
    matrices = [
        sampling_matrix(n, a, f / g / FWHM_PER_SIGMA)
        for n, a, f, g in zip(labels.shape, at, fwhm, given, strict=True)
    ]
    nearest = [
        np.clip(np.rint(a), 0, n - 1).astype(int) for a, n in zip(at, labels.shape, strict=True)
    ]
    ratio = [w / g for w, g in zip(wanted, given, strict=True)]
    moved = affine @ _shift([a[0] for a in at]) @ np.diag([*ratio, 1.0])
    truth = np.ascontiguousarray(labels[np.ix_(*nearest)])
    return along_axes(signal, matrices), truth, moved


def _received(signal: Array, scanner: Scanner, rng: np.random.Generator) -> Array:
    """Gamma, then Rician noise: the magnitude of two noisy channels."""
    if scanner.gamma != 1:
        np.power(signal, np.float32(scanner.gamma), out=signal)
    if scanner.noise > 0:
        sigma = np.float32(scanner.noise)
        signal += sigma * rng.standard_normal(signal.shape, dtype=np.float32)
        np.hypot(signal, sigma * rng.standard_normal(signal.shape, dtype=np.float32), out=signal)
    return signal


def _leave_out(
    signal: Array,
    labels: Labels,
    spacing_mm: Spacing,
    scanner: Scanner,
    rng: np.random.Generator,
) -> None:
    """Strip and deface, in place."""
    if scanner.strip_mm is not None:
        signal[~stripping_mask(labels, spacing_mm, scanner.strip_mm, rng)] = 0
    if scanner.deface:
        signal[face_mask(labels, spacing_mm, rng)] = 0


def _shift(voxels: list[float]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix
