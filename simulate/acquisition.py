"""Labels become a scan, in the order in which nature and scanner act."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from simulate.fields import (
    FWHM_PER_SIGMA,
    SmoothField,
    along_axes,
    blur,
    centres,
    one_thread,
    sampling_matrix,
)
from simulate.masking import box_around, face_mask, field_of_view, stripping_mask
from simulate.noise import Noise, channel_noise
from simulate.scanner import Scanner
from simulate.tissue import (
    IDS,
    TISSUES,
    Array,
    Codes,
    Labels,
    brain_of,
    encode,
    look_up,
    tissue_table,
)

Affine = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

SHADED = ("thalamus", "putamen", "pallidum", "ventral-dc")
SHADE_MM = 3.0  # sigma of what counts as around
RIMMED = ("caudate", "putamen", "pallidum", "hippocampus", "amygdala")
RIM_MM = 1.0  # how far a rim reaches, as a sigma
_SLAB = 4  # planes worked on at a time


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
    """
    drawn = scan_codes(encode(labels), affine, scanner, np.random.default_rng(seed))
    return replace(drawn, labels=np.array(IDS, labels.dtype)[drawn.labels])


@one_thread
def scan_codes(
    codes: Codes,
    affine: Affine,
    scanner: Scanner,
    rng: np.random.Generator,
    noise: Noise = channel_noise,
) -> SimulatedScan:
    """`scan` of labels by their codes; its labels are codes too.

    Parameters
    ----------
    codes : (X, Y, Z) uint8, see `simulate.tissue.encode`
    affine : (4, 4), voxel to mm
    rng : draws
    noise : `channel_noise`, or `polar_noise`, which is faster and draws otherwise

    Notes
    -----
    Intensities by tissue, then blur, follow Billot et al., Med Image Anal
    86:102789, 2023.
    """
    affine = np.asarray(affine, np.float64)
    if scanner.field_mm is not None:
        cut = field_of_view(brain_of(codes), spacing_of(affine), scanner.field_mm)
        affine = affine @ _shift([c.start for c in cut])
        codes = codes[cut]
    codes = np.ascontiguousarray(codes)
    signal = _tissue_signal(codes, spacing_of(affine), scanner, rng)
    signal, codes, affine = _sampled(signal, codes, affine, scanner)
    if scanner.gamma != 1:
        np.power(signal, np.float32(scanner.gamma), out=signal)
    if scanner.noise > 0:
        noise(signal, scanner.noise, rng)
    _leave_out(signal, codes, spacing_of(affine), scanner, rng)
    if scanner.gain != 1:
        signal *= np.float32(scanner.gain)
    return SimulatedScan(signal, affine, codes)


def spacing_of(affine: Affine) -> Spacing:
    """Length of the affine's columns: (X, Y, Z) mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def _tissue_signal(
    codes: Codes, spacing_mm: Spacing, scanner: Scanner, rng: np.random.Generator
) -> Array:
    """Tissue means with this scan's jitter, texture inside tissues, bias field."""
    brightness = [scanner.contrast[name] for name in TISSUES]
    jitter = 1 + scanner.jitter * rng.standard_normal(len(TISSUES))
    means = np.array([b.mean for b in brightness]) * jitter
    tissues = tissue_table()
    spreads = np.array([b.spread for b in brightness], np.float32)[tissues]
    cell = [max(scanner.texture_mm / s, 1) for s in spacing_mm]
    texture = SmoothField(codes.shape, cell, rng).planes()
    signal = _take(means.astype(np.float32)[tissues], codes)
    _change_nuclei(signal, look_up(tissues, codes), spacing_mm, scanner, rng)
    bias = None
    if scanner.bias > 0:
        cell = [scanner.bias_mm / s for s in spacing_mm]
        bias = SmoothField(codes.shape, cell, rng).planes()
    for start in range(0, len(signal), _SLAB):
        slab = signal[start : start + _SLAB]
        slab += _take(spreads, codes[start : start + _SLAB]) * texture.slab(start, start + _SLAB)
        np.maximum(slab, 0, out=slab)
        if bias is not None:
            slab *= np.exp(np.float32(scanner.bias) * bias.slab(start, start + _SLAB))
    return signal


def _take(values: Array, codes: Codes) -> Array:
    """(X, Y, Z) float32: `values[codes]`, in pieces that stay in the processor's cache."""
    taken = np.empty(codes.shape, np.float32)
    for start in range(0, len(codes), _SLAB):
        part = codes[start : start + _SLAB]
        np.take(values, part, out=taken[start : start + _SLAB], mode="clip")
    return taken


def _change_nuclei(
    signal: Array,
    tissue: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    scanner: Scanner,
    rng: np.random.Generator,
) -> None:
    """Shade deep nuclei and their rims, where the scanner shows that; changes `signal`."""
    if scanner.blend == scanner.rim == 0:
        return
    names = {TISSUES.index(name) for name in (*SHADED, *RIMMED)}
    nuclei = look_up(np.array([i in names for i in range(len(TISSUES))], np.uint8), tissue)
    box = box_around(nuclei.view(bool), [4 * SHADE_MM / s for s in spacing_mm])
    if scanner.blend > 0:
        _shade_nuclei(signal[box], tissue[box], spacing_mm, scanner.blend, rng)
    if scanner.rim > 0:
        _grey_rims(signal[box], tissue[box], spacing_mm, scanner.rim, rng)


def _shade_nuclei(
    signal: Array,
    tissue: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    blend: float,
    rng: np.random.Generator,
) -> None:
    """Let each deep nucleus take on some of what lies around it; changes `signal`."""
    around = blur(signal, [SHADE_MM / s for s in spacing_mm])
    for name in SHADED:
        share = np.float32(blend * rng.random())
        inside = tissue == TISSUES.index(name)
        signal[inside] += share * (around[inside] - signal[inside])


def _grey_rims(
    signal: Array,
    tissue: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    rim: float,
    rng: np.random.Generator,
) -> None:
    """Let white matter beside a nucleus look like it; changes `signal`.

    Labels of grey nuclei are drawn inside the border that one sees: voxels
    that hold a little white matter are counted as white matter.
    """
    sigma = [RIM_MM / s for s in spacing_mm]
    beside = ndtr(-0.5 * min(spacing_mm) / RIM_MM)  # what a voxel at a flat border has
    for name in RIMMED:
        share = rim * rng.random() / beside
        nucleus = tissue == TISSUES.index(name)
        if not nucleus.any():
            continue
        box = box_around(nucleus, [4 * s for s in sigma])
        part, white = signal[box], tissue[box] == TISSUES.index("cerebral-wm")
        near = blur(nucleus[box].astype(np.float32), sigma)[white]
        mean = part[nucleus[box]].mean()
        part[white] += np.minimum(share * near, 1) * (mean - part[white])


def _sampled(
    signal: Array, codes: Codes, affine: Affine, scanner: Scanner
) -> tuple[Array, Codes, Affine]:
    """Blur by point spread and slice profile, then sample on the scanner's grid."""
    source_mm = spacing_of(affine)
    target_mm = scanner.spacing_mm or source_mm
    profile = scanner.slice_mm or target_mm
    positions = [
        centres(n, t / s) for n, t, s in zip(codes.shape, target_mm, source_mm, strict=True)
    ]
    # The labels' voxels count as one voxel of the slice profile already.
    fwhm = [
        np.sqrt(scanner.blur_mm**2 + max(p**2 - s**2, 0))
        for p, s in zip(profile, source_mm, strict=True)
    ]
    matrices = [
        sampling_matrix(n, a, f / s / FWHM_PER_SIGMA)
        for n, a, f, s in zip(codes.shape, positions, fwhm, source_mm, strict=True)
    ]
    nearest = [
        np.clip(np.rint(a), 0, n - 1).astype(int)
        for a, n in zip(positions, codes.shape, strict=True)
    ]
    ratio = [t / s for t, s in zip(target_mm, source_mm, strict=True)]
    moved = affine @ _shift([a[0] for a in positions]) @ np.diag([*ratio, 1.0])
    return along_axes(signal, matrices), np.ascontiguousarray(codes[np.ix_(*nearest)]), moved


def _leave_out(
    signal: Array,
    codes: Codes,
    spacing_mm: Spacing,
    scanner: Scanner,
    rng: np.random.Generator,
) -> None:
    """Strip and deface, in place."""
    if scanner.strip_mm is not None:
        signal *= stripping_mask(brain_of(codes), spacing_mm, scanner.strip_mm, rng)
    if scanner.deface:
        signal[face_mask(brain_of(codes), spacing_mm, rng)] = 0


def _shift(voxels: list[float]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix
