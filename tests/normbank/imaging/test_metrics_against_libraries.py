"""Dice and HD95 against the field's two reference libraries, on oddly shaped structures."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from normbank.imaging.metrics import dice, hd95_mm

Mask = npt.NDArray[np.bool_]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    surface_distance = pytest.importorskip("surface_distance")
    monai_metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")

SPACINGS = ((1.0, 1.0, 1.0), (0.9, 0.9, 3.0), (1.2, 0.7, 2.0))


def blob(seed: int) -> Mask:
    """A lumpy structure in a volume of 40 voxels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 40, 40)), 4)
    middle = np.zeros((40, 40, 40), bool)
    middle[8:32, 8:32, 8:32] = True
    return np.asarray((noise > np.quantile(noise, 0.7)) & middle)


PAIRS = [(blob(seed), np.roll(blob(seed + (seed % 3 == 0)), (1, -2, seed % 4), (0, 1, 2)))
         for seed in range(6)]  # fmt: skip


def of_monai(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


@pytest.mark.parametrize("pair", PAIRS)
def test_dice_is_theirs(pair: tuple[Mask, Mask]) -> None:
    ours = dice(*pair)
    assert ours == pytest.approx(surface_distance.compute_dice_coefficient(*pair), abs=1e-12)
    theirs = monai_metrics.compute_dice(*(of_monai(mask) for mask in pair)).item()
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # theirs
@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("pair", PAIRS)
def test_hd95_is_theirs(pair: tuple[Mask, Mask], spacing_mm: tuple[float, float, float]) -> None:
    ours = hd95_mm(*pair, spacing_mm)
    theirs = monai_metrics.compute_hausdorff_distance(
        *(of_monai(mask) for mask in pair),
        include_background=True,
        percentile=95,
        spacing=list(spacing_mm),
    )
    assert ours == pytest.approx(theirs.item(), abs=1e-4)
    # Another surface: marching cubes between the voxels, weighted by area.
    distances = surface_distance.compute_surface_distances(*pair, spacing_mm)
    between = surface_distance.compute_robust_hausdorff(distances, 95)
    assert ours == pytest.approx(between, abs=max(spacing_mm))
