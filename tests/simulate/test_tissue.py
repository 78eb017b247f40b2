import numpy as np
import pytest

from simulate import CONTRASTS, TISSUE_IDS, TISSUES
from simulate.tissue import brain_mask, tissue_of


def test_every_tissue_has_a_brightness_in_every_contrast() -> None:
    for contrast in CONTRASTS.values():
        assert set(contrast) == set(TISSUES)


def test_no_id_belongs_to_two_tissues() -> None:
    ids = [i for group in TISSUE_IDS.values() for i in group]

    assert len(ids) == len(set(ids))


def test_left_and_right_are_the_same_tissue() -> None:
    left, right = tissue_of(np.array([[[2, 3, 10, 17]]])), tissue_of(np.array([[[41, 42, 49, 53]]]))

    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("unknown", [-1, 300, 5000])
def test_an_unknown_id_is_named(unknown: int) -> None:
    with pytest.raises(ValueError, match=str(unknown)):
        tissue_of(np.array([[[0, 2, unknown]]]))


def test_the_brain_is_neither_fluid_around_it_nor_head() -> None:
    labels = np.array([[[0, 24, 507, 515, 512, 2, 4, 16]]])

    assert brain_mask(labels).ravel().tolist() == [False] * 5 + [True] * 3
