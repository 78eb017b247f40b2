from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from simulate import CONTRASTS, SCANNERS, Scanner, random_scanner, scan
from simulate.phantom import SMALL_SHAPE, SMALL_SPACING_MM, draw_head, head_affine

AFFINE = head_affine(SMALL_SHAPE, SMALL_SPACING_MM)
QUIET = Scanner("quiet", CONTRASTS["t1w"], jitter=0, bias=0, noise=0, blur_mm=0, gain=1.0)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return draw_head(0, SMALL_SHAPE, SMALL_SPACING_MM)


def _mean(scanned: object, *ids: int) -> float:
    return float(scanned.data[np.isin(scanned.labels, ids)].mean())  # type: ignore[attr-defined]


def test_the_seed_decides(head: np.ndarray) -> None:
    scanner = SCANNERS["d3-t1w-1p5t"]
    first = scan(head, AFFINE, scanner, 1)

    np.testing.assert_array_equal(first.data, scan(head, AFFINE, scanner, 1).data)
    assert (first.data != scan(head, AFFINE, scanner, 2).data).any()


def test_white_matter_is_brightest_in_t1w_and_fluid_in_t2w(head: np.ndarray) -> None:
    t1w = scan(head, AFFINE, QUIET, 0)
    t2w = scan(head, AFFINE, replace(QUIET, contrast=CONTRASTS["t2w"]), 0)

    assert _mean(t1w, 2, 41) > _mean(t1w, 3, 42) > _mean(t1w, 4, 43)
    assert _mean(t2w, 4, 43) > _mean(t2w, 3, 42) > _mean(t2w, 2, 41)


def test_a_whole_head_keeps_its_grid(head: np.ndarray) -> None:
    scanned = scan(head, AFFINE, SCANNERS["d4-t1w-3t-raw"], 0)

    assert scanned.data.dtype == np.float32
    np.testing.assert_array_equal(scanned.labels, head)
    np.testing.assert_allclose(scanned.affine, AFFINE)


def test_thick_slices_stay_where_they_were(head: np.ndarray) -> None:
    thick = scan(head, AFFINE, replace(QUIET, spacing_mm=(3.0, 3.0, 9.0)), 0)

    assert thick.data.shape == thick.labels.shape == (64, 76, 25)
    np.testing.assert_allclose(thick.spacing_mm, (3, 3, 9))
    places = []
    for labels, affine in ((head, AFFINE), (thick.labels, thick.affine)):
        voxel = np.argwhere(np.isin(labels, (2, 41))).mean(0)
        places.append(affine[:3, :3] @ voxel + affine[:3, 3])
    np.testing.assert_allclose(places[0], places[1], atol=1)


def test_stripping_leaves_the_brain_and_little_else(head: np.ndarray) -> None:
    whole = scan(head, AFFINE, QUIET, 0)
    stripped = scan(head, AFFINE, replace(QUIET, strip_mm=1.0), 0)
    brain = np.isin(head, (2, 3, 41, 42, 10, 49, 16, 8, 47))

    assert (stripped.data[brain & (whole.data > 0)] > 0).all()
    assert (stripped.data[np.isin(head, (507, 511, 515, 516))] > 0).mean() < 0.02


def test_defacing_takes_the_nose_and_spares_the_brain(head: np.ndarray) -> None:
    whole = scan(head, AFFINE, QUIET, 0)
    defaced = scan(head, AFFINE, replace(QUIET, deface=True), 0)
    removed = (defaced.data == 0) & (whole.data > 0)

    assert removed[head == 509].mean() > 0.9
    assert not removed[(head > 0) & (head < 500) & (head != 24)].any()
    assert removed.sum() < 0.4 * (whole.data > 0).sum()


def test_the_field_of_view_is_a_box_around_the_brain(head: np.ndarray) -> None:
    cropped = scan(head, AFFINE, replace(QUIET, field_mm=(165.0, 195.0, 150.0)), 0)

    assert cropped.data.shape == (55, 65, 50)
    brain = (cropped.labels > 0) & (cropped.labels < 500) & (cropped.labels != 16)
    assert brain.sum() > 0.85 * ((head > 0) & (head < 500) & (head != 16)).sum()
    start = np.rint(np.linalg.inv(AFFINE)[:3] @ cropped.affine[:, 3]).astype(int)
    part = tuple(slice(s, s + n) for s, n in zip(start, cropped.labels.shape, strict=True))
    np.testing.assert_array_equal(cropped.labels, head[part])


def test_noise_in_air_is_rayleigh(head: np.ndarray) -> None:
    noisy = scan(head, AFFINE, replace(QUIET, noise=0.1), 0)

    assert _mean(noisy, 0) == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)


def test_a_bias_field_spreads_one_tissue(head: np.ndarray) -> None:
    white = np.isin(head, (2, 41))
    even = scan(head, AFFINE, QUIET, 0).data[white]
    biased = scan(head, AFFINE, replace(QUIET, bias=0.3), 0).data[white]

    assert biased.std() > 3 * even.std()


def test_an_id_without_a_tissue_is_refused() -> None:
    with pytest.raises(ValueError, match="999"):
        scan(np.full((4, 4, 4), 999), np.eye(4), QUIET, 0)


@pytest.mark.parametrize("family", [*CONTRASTS, None])
def test_random_scanners_answer_finite_scans_on_one_grid(
    head: np.ndarray, family: str | None
) -> None:
    rng = np.random.default_rng(5)
    for seed in range(3):
        scanned = scan(head, np.eye(4), random_scanner(rng, family), seed)

        assert scanned.data.shape == scanned.labels.shape
        assert np.isfinite(scanned.data).all()
        assert scanned.data.max() > 0


def test_random_scanners_follow_from_the_generator() -> None:
    assert random_scanner(np.random.default_rng(1)) == random_scanner(np.random.default_rng(1))


def test_white_matter_beside_a_nucleus_looks_like_it_and_keeps_its_label(head: np.ndarray) -> None:
    plain = scan(head, AFFINE, QUIET, 0)
    rimmed = scan(head, AFFINE, replace(QUIET, rim=3.0), 0)
    nuclei = np.isin(head, (11, 50, 26, 58, 12, 51, 13, 52, 17, 53, 18, 54))
    changed = np.abs(rimmed.data - plain.data) > 1e-3

    np.testing.assert_array_equal(rimmed.labels, plain.labels)
    assert changed.any()
    assert np.isin(head[changed], (2, 41)).mean() > 0.95
    assert (distance_transform_edt(~nuclei, SMALL_SPACING_MM)[changed] <= 6).all()
    assert rimmed.data[changed].mean() < plain.data[changed].mean()
