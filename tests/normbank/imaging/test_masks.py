"""What is made for speed gives what SciPy and NumPy give."""

import numpy as np
import pytest
from scipy import ndimage

from normbank.imaging.masks import (
    box_of,
    largest_component,
    open_to_outside,
    opened,
    profile,
    relabelled,
    voxels_by_component,
)


def masks():
    """Small and large, sparse and dense, empty and full, rough and smooth."""
    rng = np.random.default_rng(5)
    for share in (0.0, 0.02, 0.2, 0.5, 0.9, 1.0):
        for shape in ((1, 1, 1), (7, 1, 3), (9, 8, 63), (5, 9, 64), (6, 7, 130)):
            rough = rng.random(shape) < share
            yield rough
            yield ndimage.binary_dilation(rough)


def stored_in_every_order(mask):
    yield mask
    yield np.asfortranarray(mask)
    yield np.ascontiguousarray(mask.transpose(1, 0, 2)).transpose(1, 0, 2)[::-1, :, ::-1]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_an_opening_is_scipys_in_every_order_of_memory(rounds):
    for mask in masks():
        for stored in stored_in_every_order(mask):
            expected = ndimage.binary_opening(stored, iterations=rounds)
            np.testing.assert_array_equal(opened(stored, rounds), expected)


def test_a_profile_counts_the_voxels_of_each_plane():
    for mask in masks():
        for stored in stored_in_every_order(mask):
            for axis in range(3):
                others = tuple(a for a in range(3) if a != axis)
                np.testing.assert_array_equal(profile(stored, axis), stored.sum(others))


@pytest.mark.parametrize("corners", [False, True])
def test_the_largest_component_is_the_first_of_scipys_greatest(corners):
    structure = np.ones((3, 3, 3)) if corners else None
    for mask in masks():
        kept = mask.copy()
        parts, count = ndimage.label(mask, structure)
        sizes = np.bincount(parts.ravel())[1:]
        expected = parts == 1 + np.argmax(sizes) if count else mask
        np.testing.assert_array_equal(largest_component(mask, corners=corners), expected)
        np.testing.assert_array_equal(mask, kept)


def test_what_is_open_to_the_outside_touches_a_face_somewhere():
    for mask in masks():
        parts, count = ndimage.label(mask)
        touching = np.zeros(count + 1, bool)
        for axis in range(3):
            touching[np.take(parts, [0, -1], axis)] = True
        np.testing.assert_array_equal(open_to_outside(mask), touching[parts] & mask)


def test_a_box_holds_all_and_no_more():
    volume = np.zeros((9, 8, 7), np.int16)
    assert volume[box_of(volume)].size == 0
    volume[2, 3, 4] = -1
    volume[5, 3, 6] = 256  # whose low byte is 0
    assert box_of(volume) == (slice(2, 6), slice(3, 4), slice(4, 7))
    assert box_of(np.asfortranarray(volume)[::-1]) == (slice(3, 7), slice(3, 4), slice(4, 7))


def test_relabelling_is_indexing_of_a_table():
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 256, (5, 6, 7)).astype(np.uint8).transpose(2, 0, 1)[::-1]
    table = rng.integers(0, 256, 256).astype(np.uint8)
    np.testing.assert_array_equal(relabelled(volume, table), table[volume])


def test_the_voxels_of_a_mask_are_grouped_as_scipy_groups_them():
    for mask in masks():
        parts, count = ndimage.label(mask)
        at, numbers = voxels_by_component(mask)
        np.testing.assert_array_equal(at, np.flatnonzero(mask))
        pairs = np.unique(np.stack([parts.ravel()[at], numbers]), axis=1)
        assert pairs.shape[1] == count == len(set(numbers))
