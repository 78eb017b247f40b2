import numpy as np
import pytest

from simulate.fields import SmoothField, along_axes, blur, centres, sampling_matrix


def _field(seed: int) -> SmoothField:
    return SmoothField((40, 50, 60), (5.0, 5.0, 5.0), np.random.default_rng(seed))


def test_a_field_has_mean_zero_and_deviation_one() -> None:
    values = _field(0).volume()

    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1, abs=0.1)


def test_a_field_is_smooth() -> None:
    steps = np.diff(_field(0).volume(), axis=0)

    assert np.abs(steps).max() < 1


def test_slabs_add_up_to_the_volume() -> None:
    field = _field(1)

    planes = field.planes()

    slabs = np.concatenate([planes.slab(0, 13), planes.slab(13, 40)])

    np.testing.assert_allclose(slabs, field.volume(), atol=1e-5)


def test_coarse_voxels_are_centred_in_the_fine_box() -> None:
    at = centres(12, 3.0)

    np.testing.assert_allclose(at, [1, 4, 7, 10])


def test_sampling_at_every_voxel_without_blur_changes_nothing() -> None:
    volume = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)

    same = along_axes(volume, [sampling_matrix(n, np.arange(n) * 1.0, 0.0) for n in volume.shape])

    np.testing.assert_array_equal(same, volume)


def test_each_axis_gets_its_own_matrix() -> None:
    volume = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    matrices = [np.ones((k, n), np.float32) for k, n in zip((1, 2, 3), volume.shape, strict=True)]

    sums = along_axes(volume, matrices)

    assert sums.shape == (1, 2, 3)
    np.testing.assert_allclose(sums, volume.sum(), rtol=1e-5)


def test_blur_keeps_a_constant_volume() -> None:
    constant = np.full((9, 8, 7), 3.0, np.float32)

    np.testing.assert_allclose(blur(constant, (1.0, 2.0, 0.4)), 3, rtol=1e-6)
