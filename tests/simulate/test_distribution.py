"""What is drawn has the distribution that the scanner says, by independent truth."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr
from scipy.stats import kstest, rice
from threadpoolctl import threadpool_info

from simulate import CONTRASTS, TISSUES, WIDE_DEFORMATION, Brightness, Scanner, deform, scan
from simulate.deform import Warp
from simulate.fields import SmoothField, one_thread
from simulate.masking import stripping_mask
from simulate.noise import Noise, channel_noise, polar_noise
from simulate.phantom import SMALL_SHAPE, SMALL_SPACING_MM, draw_head, head_affine
from simulate.tissue import brain_mask, tissue_of

AFFINE = head_affine(SMALL_SHAPE, SMALL_SPACING_MM)
QUIET = Scanner("quiet", CONTRASTS["t1w"], jitter=0, bias=0, noise=0, blur_mm=0, gain=1.0)
FLAT: Mapping[str, Brightness] = {
    name: replace(brightness, spread=0.0) for name, brightness in CONTRASTS["t1w"].items()
}


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return draw_head(0, SMALL_SHAPE, SMALL_SPACING_MM)


@pytest.mark.parametrize("noise", [channel_noise, polar_noise])
@pytest.mark.parametrize("signal", [0.0, 0.05, 0.4])
def test_noise_is_rician(noise: Noise, signal: float) -> None:
    sigma, drawn = 0.1, np.full((50, 60, 70), signal, np.float32)

    noise(drawn, sigma, np.random.default_rng(3))

    assert kstest(drawn.ravel(), rice(signal / sigma, scale=sigma).cdf).pvalue > 0.01
    assert drawn.max() < 6.2 * sigma + signal
    centred = drawn - drawn.mean()
    for axis in range(3):  # no voxel knows the one beside it
        beside = np.take(centred, range(1, drawn.shape[axis]), axis)
        here = np.take(centred, range(drawn.shape[axis] - 1), axis)
        assert abs((here * beside).mean() / drawn.var()) < 0.01


def test_tissues_have_the_means_and_spreads_of_the_contrast(head: np.ndarray) -> None:
    tissue = tissue_of(head)
    # Texture as fine as the voxels, so that few scans have many independent places.
    scanner = replace(QUIET, texture_mm=SMALL_SPACING_MM)
    scans = np.stack([scan(head, AFFINE, scanner, seed).data for seed in range(6)])

    for name in ("cerebral-wm", "cerebral-gm", "cerebellum-gm", "thalamus", "csf"):
        inside, said = scans[:, tissue == TISSUES.index(name)], CONTRASTS["t1w"][name]
        assert inside.mean() == pytest.approx(said.mean, abs=0.2 * said.spread), name
        assert inside.std() == pytest.approx(said.spread, rel=0.12), name


def test_a_tissue_is_brighter_or_darker_from_scan_to_scan(head: np.ndarray) -> None:
    part, white = head[20:44, 20:56, 24:48], tissue_of(head[20:44, 20:56, 24:48])
    scanner = replace(QUIET, contrast=FLAT, jitter=0.05)
    means = [
        scan(part, AFFINE, scanner, seed).data[white == TISSUES.index("cerebral-wm")].mean()
        for seed in range(100)
    ]

    assert np.mean(means) == pytest.approx(1, abs=0.02)
    assert np.std(means) == pytest.approx(0.05, rel=0.25)


def test_a_field_forgets_itself_as_a_random_spline_does() -> None:
    """Its autocorrelation is the B-spline of degree 7, whose values are known."""
    cell, products, power, mean = 4, np.zeros(4), 0.0, 0.0
    for seed in range(8):
        values = SmoothField((64, 60, 56), (4, 5, 3.5), np.random.default_rng(seed)).volume()
        mean, power = mean + values.mean() / 8, power + (values**2).mean()
        for knots in range(4):
            shift = knots * cell
            products[knots] += (values[shift:] * values[: len(values) - shift]).mean()

    assert mean == pytest.approx(0, abs=0.03)
    assert power / 8 == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(
        products / products[0], np.array([2416, 1191, 120, 1]) / 2416, atol=0.03
    )


def test_the_log_of_the_bias_field_has_its_deviation(head: np.ndarray) -> None:
    scanner = replace(QUIET, contrast=FLAT, bias_mm=24.0)
    even = scan(head, AFFINE, scanner, 0).data
    logs = [
        np.log(scan(head, AFFINE, replace(scanner, bias=0.2), seed).data[even > 0] / even[even > 0])
        for seed in range(12)
    ]

    assert np.mean(logs) == pytest.approx(0, abs=0.02)
    assert np.std(logs) == pytest.approx(0.2, rel=0.08)


@pytest.mark.parametrize("fwhm_mm", [1.5, 3.0])
def test_an_edge_is_as_wide_as_the_point_spread(fwhm_mm: float) -> None:
    labels = np.zeros((41, 9, 9), np.int16)
    labels[20:] = 2
    profile = scan(labels, np.eye(4), replace(QUIET, contrast=FLAT, blur_mm=fwhm_mm), 0)
    slope = np.diff(profile.data[:, 4, 4])
    place = np.arange(len(slope)) - (slope * np.arange(len(slope))).sum() / slope.sum()
    sigma = np.sqrt((slope * place**2).sum() / slope.sum())

    assert 2.3548 * sigma == pytest.approx(fwhm_mm, rel=0.05)


def test_a_part_of_a_deformation_is_cut_from_the_whole(head: np.ndarray) -> None:
    whole = deform(head, 5, WIDE_DEFORMATION)
    warp = Warp(head.shape, 5, WIDE_DEFORMATION)

    for box in (
        (slice(10, 50), slice(5, 70), slice(20, 41)),
        (slice(None, None, 2), slice(1, None, 3), slice(None, None, 2)),
    ):
        differ = warp.of(head, box) != whole[box]
        assert differ.mean() < 1e-4  # a source just between two voxels


def test_a_stripper_keeps_what_its_formula_says(head: np.ndarray) -> None:
    brain, spacing = brain_mask(head), (SMALL_SPACING_MM,) * 3
    mask = stripping_mask(brain, spacing, 3.0, np.random.default_rng(4))

    cell = [12 / s for s in spacing]
    ragged = SmoothField(brain.shape, cell, np.random.default_rng(4)).volume()
    near = gaussian_filter(brain.astype(np.float64), 3.0 / SMALL_SPACING_MM, mode="nearest")
    wanted = brain | (near > ndtr(-(3.0 + 0.8 * ragged) / 3.0))
    assert mask.sum() > 1.1 * brain.sum()
    assert (mask != wanted).sum() < 0.002 * brain.sum()


def test_products_of_matrices_keep_to_one_core() -> None:
    def cores() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = cores()

    assert before
    assert set(one_thread(cores)()) == {1}
    assert cores() == before
