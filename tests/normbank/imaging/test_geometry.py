"""Into the network's space and back, however the scan is stored."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from normbank.imaging.geometry import Geometry, Window, nearest_ras
from normbank.imaging.nifti import Scan
from normbank.imaging.resample import resample_classes

ORIENTATIONS = [
    np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]
angles = st.floats(-np.pi / 6, np.pi / 6)
spacings = st.sampled_from([0.5, 0.7, 0.88, 1.0, 1.2, 1.5, 2.0, 3.0])


def ras_affine(spacing, rotation=(0, 0, 0), origin=(-40, 12, 7)):
    return from_matvec(euler2mat(*rotation) @ np.diag(spacing), origin)


def stored(data, affine, orientation):
    """The same scan with its axes in another order and direction."""
    image = nib.Nifti1Image(data, affine).as_reoriented(orientation)
    return Scan(np.asarray(image.dataobj), image.affine)


def ellipsoids(shape, spacing, radius_mm, count, seed):
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    half = np.array(shape) * spacing / 2 - radius_mm
    classes = np.zeros(shape, np.uint8)
    for number in range(1, count + 1):
        radii = np.exp(rng.uniform(-0.3, 0.3, 3))
        radii *= radius_mm / np.prod(radii) ** (1 / 3)
        turned = (points - rng.uniform(-half, half)) @ euler2mat(*rng.uniform(-3, 3, 3))
        classes[((turned / radii) ** 2).sum(-1) < 1] = number
    return classes


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.88, 0.88, 0.88), (1.2, 1, 1), (1, 0.7, 3)])
def test_all_48_orientations_give_the_same_network_volume_bit_for_bit(spacing):
    data = np.random.default_rng(1).random((21, 18, 15), np.float32)
    labels = ellipsoids(data.shape, spacing, 4, 3, seed=2)
    affine = ras_affine(spacing, (0.2, -0.3, 0.4))
    reference = Geometry.of(Scan(data, affine), 1.0)
    expected = reference.to_network(data)
    expected_labels = reference.labels_to_network(labels, 4)
    expected_back = reference.labels_to_scan(expected_labels)
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS:
        scan = stored(data, affine, orientation)
        geometry = Geometry.of(scan, 1.0)
        np.testing.assert_array_equal(geometry.to_network(scan.data), expected)
        np.testing.assert_allclose(geometry.network_affine, reference.network_affine, atol=1e-9)
        turned = stored(labels, affine, orientation).data
        np.testing.assert_array_equal(geometry.labels_to_network(turned, 4), expected_labels)
        back = geometry.labels_to_scan(expected_labels)
        np.testing.assert_array_equal(back, stored(expected_back, affine, orientation).data)


def test_at_one_millimetre_voxels_are_only_reordered():
    data = np.random.default_rng(1).random((9, 8, 7), np.float32)
    for orientation in ORIENTATIONS:
        scan = stored(data, ras_affine((1, 1, 1)), orientation)
        geometry = Geometry.of(scan, 1.0)
        assert geometry.is_identity
        np.testing.assert_array_equal(geometry.to_network(scan.data), data)


def test_the_networks_axes_run_right_front_and_up():
    order, flips = nearest_ras(np.array([[0, 0, -1, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]))
    assert order == (2, 0, 1)
    assert flips == (True, False, True)


@pytest.mark.parametrize(
    "spacing",
    [
        *((1.2, 1, 1), (1, 1, 3), (1.05, 1.05, 1.05), (1.1, 1.1, 1.1), (1.5, 1.5, 1.5)),
        *((2, 2, 2), (1, 1, 5), (1.3, 1.4, 1.7), (1.2, 1.2, 4)),
        *((0.9, 0.9, 0.9), (0.88, 0.88, 0.88), (0.7, 0.7, 0.7), (0.5, 0.5, 0.5), (0.94, 1, 2)),
    ],
)
def test_labels_survive_the_way_there_and_back(spacing):
    shape = tuple(int(np.ceil(72 / s)) for s in spacing)
    labels = ellipsoids(shape, spacing, 7.0, 6, seed=3)
    geometry = Geometry.of(Scan(np.zeros(shape, np.float32), ras_affine(spacing)), 1.0)
    back = geometry.labels_to_scan(geometry.labels_to_network(labels, 7))
    scores = [
        dice(labels == n, back == n)
        for n in range(1, 7)
        if (labels == n).sum() * np.prod(spacing) >= 1000
    ]
    assert len(scores) >= 3
    assert min(scores) >= (0.97 if min(spacing) >= 1 else 0.92)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(spacings, spacings, spacings),
    st.tuples(angles, angles, angles),
    st.tuples(*[st.floats(24, 34)] * 3),
    st.integers(0, 99),
)
def test_any_grid_comes_back_in_its_own_shape_and_place(
    orientation, spacing, rotation, extent_mm, seed
):
    shape = tuple(int(e / s) for e, s in zip(extent_mm, spacing, strict=True))
    data = ellipsoids(shape, spacing, 6.8, 1, seed).astype(np.float32)
    scan = stored(data, ras_affine(spacing, rotation), orientation)
    geometry = Geometry.of(scan, 1.0)
    volume = geometry.to_network(scan.data)
    classes = geometry.labels_to_network(scan.data.astype(np.uint8), 2)
    back = geometry.labels_to_scan(classes)
    assert volume.shape == classes.shape == geometry.network_shape
    assert back.shape == scan.data.shape
    if data.sum() * np.prod(spacing) >= 1000:
        assert dice(back == 1, scan.data == 1) >= (0.97 if min(spacing) >= 1 else 0.92)
    there = geometry.network_affine @ [*np.argwhere(classes).mean(axis=0), 1]
    here = scan.affine @ [*np.argwhere(scan.data).mean(axis=0), 1]
    np.testing.assert_allclose(there, here, atol=0.75)
    lengths = np.linalg.norm(geometry.network_affine[:3, :3], axis=0)
    np.testing.assert_allclose(lengths, 1, rtol=0.031)


def test_a_linear_ramp_keeps_its_place_in_the_world():
    for spacing in ((0.7, 0.88, 0.5), (1.5, 2, 3)):
        shape = (30, 28, 26)
        affine = ras_affine(spacing, (0.1, 0.2, -0.3))
        world = np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]
        slope = np.array([1.0, -2.0, 0.5])
        geometry = Geometry.of(Scan(np.zeros(shape, np.float32), affine), 1.0)
        found = geometry.to_network((world @ slope).astype(np.float32))
        grid = np.stack(np.indices(found.shape), -1)
        there = grid @ geometry.network_affine[:3, :3].T + geometry.network_affine[:3, 3]
        inner = (slice(4, -4),) * 3
        np.testing.assert_allclose(found[inner], (there @ slope)[inner], atol=1e-3)


def test_noise_finer_than_the_network_is_smoothed_away():
    data = np.indices((64, 64, 64)).sum(0) % 2
    scan = Scan(data.astype(np.float32), ras_affine((0.5, 0.5, 0.5)))
    found = Geometry.of(scan, 1.0).to_network(scan.data)
    assert np.abs(found[4:-4, 4:-4, 4:-4] - 0.5).max() < 0.02


def test_labels_of_another_shape_are_a_programmers_mistake():
    geometry = Geometry.of(Scan(np.zeros((9, 9, 9), np.float32), np.eye(4)), 1.0)
    with pytest.raises(ValueError, match="grid"):
        geometry.labels_to_scan(np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="grid"):
        geometry.to_network(np.zeros((3, 3, 3)))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.floats(-12, 20)] * 3),
)
def test_a_window_is_pasted_back_where_it_was_cut(size, shape, centre):
    volume = np.arange(1, 1 + np.prod(shape), dtype=np.int32).reshape(shape)
    window = Window(size, centre)
    box = window.cut(volume)
    again = window.paste(box, shape)
    assert box.shape == size
    assert again.shape == shape
    assert ((again == volume) | (again == 0)).all()
    assert np.count_nonzero(again) == np.count_nonzero(box)
    for index in np.ndindex(size):
        place = tuple(np.add(index, window.start))
        inside = all(0 <= p < n for p, n in zip(place, shape, strict=True))
        assert box[index] == (volume[place] if inside else 0)


def test_a_window_around_the_middle_holds_a_smaller_volume_whole():
    volume = np.ones((5, 6, 7), np.uint8)
    window = Window((16, 16, 16), (np.array(volume.shape) - 1) / 2)
    np.testing.assert_array_equal(window.paste(window.cut(volume), (5, 6, 7)), volume)


def test_at_one_millimetre_the_scan_itself_is_seen():
    data = np.random.default_rng(1).random((9, 8, 7), np.float32)
    for orientation in ORIENTATIONS:
        scan = stored(data, ras_affine((1, 1, 1)), orientation)
        assert np.shares_memory(Geometry.of(scan, 1.0).to_network(scan.data), scan.data)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (1, 0.6, 2.5), (2, 2, 2)])
def test_only_where_labels_reach_they_are_voted_on(spacing):
    rng = np.random.default_rng(4)
    scan = Scan(np.zeros((30, 26, 22), np.float32), ras_affine(spacing))
    geometry = Geometry.of(scan, 1.0)
    shape = geometry.network_shape
    for corner in [(0, 0, 0), tuple(n - 6 for n in shape), (5, 7, 4)]:
        classes = np.zeros(shape, np.uint8)
        place = tuple(slice(c, c + 6) for c in corner)
        classes[place] = rng.choice([0, 3, 40, 60], classes[place].shape)
        expected = resample_classes(classes, geometry._axes_back(), 61)
        found = geometry.labels_to_scan(classes)
        np.testing.assert_array_equal(found, expected)
        assert found.any()
    assert not geometry.labels_to_scan(np.zeros(shape, np.uint8)).any()
