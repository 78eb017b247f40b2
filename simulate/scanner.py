"""What a simulated scanner is, and the ones that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulate.tissue import CONTRASTS, Brightness, Contrast


@dataclass(frozen=True)
class Scanner:
    """One scanner and protocol; intensities are in units of the brightest tissue.

    Attributes
    ----------
    name : for people
    contrast : brightness of each of `TISSUES`
    jitter : relative spread of a tissue's mean from scan to scan
    texture_mm : size of the slow variation inside a tissue
    blend : at most this share of a deep nucleus's brightness is that of its
        surroundings, as myelin shades off across it
    rim : how much, at most, white matter beside a grey nucleus looks like it,
        whose label is drawn inside its border; 1: wholly at a flat border,
        more: farther out and at corners
    bias : standard deviation of the log of the bias field
    bias_mm : distance over which the field changes
    noise : sigma of the two channels of the Rician noise
    blur_mm : FWHM of the point spread, on top of the voxel's size
    spacing_mm : voxels of the answered scan; None: those of the labels
    slice_mm : FWHM of the slice profile per axis; None: the spacing
    gamma : exponent of the noiseless signal
    gain : scanner units of intensity 1
    strip_mm : margin left around the brain when the skull is stripped; None: whole head
    deface : cut the face away
    field_mm : the answered box, around the brain's centre; None: all
    """

    name: str
    contrast: Contrast
    jitter: float = 0.02
    texture_mm: float = 4.0
    blend: float = 0.0
    rim: float = 0.0
    bias: float = 0.1
    bias_mm: float = 90.0
    noise: float = 0.02
    blur_mm: float = 1.0
    spacing_mm: tuple[float, float, float] | None = None
    slice_mm: tuple[float, float, float] | None = None
    gamma: float = 1.0
    gain: float = 1000.0
    strip_mm: float | None = None
    deface: bool = False
    field_mm: tuple[float, float, float] | None = None


def altered(contrast: Contrast, **means: float) -> Contrast:
    """A contrast with some tissue means replaced; `cerebral_wm` names cerebral-wm.

    Raises
    ------
    KeyError
        If a name is no tissue.
    """
    changed = dict(contrast)
    for name, mean in means.items():
        tissue = name.replace("_", "-")
        changed[tissue] = replace(changed[tissue], mean=mean)
    return changed


def _t1w_raw() -> Contrast:
    """Short inversion time: grey matter dark, deep nuclei close to white matter."""
    return altered(
        CONTRASTS["t1w"],
        cerebral_gm=0.62,
        cerebellum_gm=0.625,
        caudate=0.635,
        putamen=0.715,
        thalamus=0.83,
        hippocampus=0.605,
        amygdala=0.585,
        csf=0.21,
        ventricle=0.14,
        skin=1.325,
        soft_tissue=0.725,
        marrow=1.0,
    )


def _t2w_raw() -> Contrast:
    """Long echo: fluid far above the rest, bright fat, white near grey matter."""
    return altered(
        CONTRASTS["t2w"],
        cerebral_wm=0.29,
        cerebral_gm=0.414,
        cerebellum_wm=0.287,
        cerebellum_gm=0.391,
        thalamus=0.345,
        caudate=0.378,
        putamen=0.335,
        pallidum=0.22,
        hippocampus=0.431,
        amygdala=0.434,
        skin=0.935,
        soft_tissue=0.47,
        marrow=0.674,
    )


# The five domains of Karani et al., MICCAI 2018, table 1, as simulations.
SCANNERS: Mapping[str, Scanner] = {
    scanner.name: scanner
    for scanner in (
        Scanner("d1-t1w-3t", CONTRASTS["t1w"], bias=0.03, noise=0.012, blur_mm=0.8, strip_mm=1.5),
        Scanner("d2-t2w-3t", CONTRASTS["t2w"], bias=0.03, noise=0.015, blur_mm=0.8, strip_mm=1.5),
        Scanner(
            "d3-t1w-1p5t",
            altered(CONTRASTS["t1w"], cerebral_gm=0.72, cerebellum_gm=0.71, csf=0.30),
            bias=0.18,
            noise=0.045,
            blur_mm=1.3,
            gain=420.0,
        ),
        Scanner(
            "d4-t1w-3t-raw", _t1w_raw(), bias=0.25, noise=0.03, gamma=1.3, gain=180.0, bias_mm=80.0
        ),
        Scanner(
            "d5-t2w-3t-raw",
            _t2w_raw(),
            bias=0.22,
            noise=0.03,
            spacing_mm=(1.0, 1.0, 3.0),
            gamma=0.8,
            gain=250.0,
            bias_mm=70.0,
        ),
    )
}


def random_contrast(rng: np.random.Generator, family: str | None = None) -> Contrast:
    """Draw tissue brightnesses.

    Parameters
    ----------
    rng : draws
    family : one of `CONTRASTS`, varied by about a tenth; None: every tissue
        anywhere between 0 and 1, as in Billot et al., Med Image Anal 2023

    Returns
    -------
    Contrast
    """
    start = CONTRASTS[family or "t1w"]
    widen = rng.uniform(0.6, 2.0)
    drawn: dict[str, Brightness] = {}
    for tissue, brightness in start.items():
        mean = brightness.mean + 0.06 * rng.standard_normal() * (brightness.mean > 0)
        if family is None and tissue != "air":
            mean = rng.uniform(0.05, 1.0)
        drawn[tissue] = Brightness(max(float(mean), 0.0), brightness.spread * widen)
    return drawn


def random_scanner(rng: np.random.Generator, family: str | None = None) -> Scanner:
    """Draw a scanner from a wide range, for training a backbone.

    Parameters
    ----------
    rng : draws
    family : see `random_contrast`

    Returns
    -------
    Scanner
        Its scans keep the labels' spacing in one case of two.
    """
    spacing = rng.uniform(0.8, 1.3, 3)
    spacing[rng.integers(3)] *= rng.choice([1.0, rng.uniform(1.0, 4.0)])
    resampled = rng.random() < 0.5
    stripped, defaced, cropped = rng.random(3) < (0.4, 0.3, 0.4)
    width = rng.uniform((160, 190, 150), (220, 260, 230))
    return Scanner(
        name=f"random-{family or 'any'}",
        contrast=random_contrast(rng, family),
        jitter=0.03,
        texture_mm=float(rng.uniform(2, 8)),
        bias=float(rng.uniform(0, 0.35)),
        bias_mm=float(rng.uniform(50, 120)),
        noise=float(rng.uniform(0.005, 0.08)),
        blur_mm=float(rng.uniform(0.3, 2.2)),
        spacing_mm=_triple(spacing) if resampled else None,
        gamma=float(np.exp(rng.normal(0, 0.3))),
        gain=float(np.exp(rng.uniform(0, np.log(4000)))),
        strip_mm=float(rng.uniform(0, 5)) if stripped else None,
        deface=bool(defaced and not stripped),
        field_mm=_triple(width) if cropped else None,
    )


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
