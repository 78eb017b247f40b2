from __future__ import annotations

import numpy as np
import pytest
import torch

from models.labelling import Labelling

SHAPE = (11, 6, 7)


def scores() -> torch.Tensor:
    """N K H W, smooth enough that neighbours often agree."""
    found = torch.randn(SHAPE[0], 5, *SHAPE[1:], generator=torch.Generator().manual_seed(3))
    return found + 2 * found[:1]


def labelled(logits: torch.Tensor, weight: float, sizes: tuple[int, ...]) -> np.ndarray:
    """Taken in batches whose memory is written over after each."""
    labelling, at = Labelling(SHAPE, weight), 0
    for size in sizes:
        assert not labelling.done
        batch = logits[at : at + size].clone()
        labelling.take(batch)
        batch.fill_(99.0)
        at += size
    assert labelling.done
    return labelling.classes


def averaged(logits: torch.Tensor, weight: float) -> np.ndarray:
    """The whole run at once, in the plainest way."""
    around = torch.cat([logits[:1], logits, logits[-1:]])
    mixed = weight * (around[:-2] + around[2:]) + (1 - 2 * weight) * logits
    return mixed.argmax(1).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the short way, the plain one
@pytest.mark.parametrize("sizes", [(11,), (4, 4, 3), (1, 1, 2, 1, 5, 1), (1,) * 11])
def test_neighbours_have_their_say_however_the_slices_come(
    dtype: torch.dtype, sizes: tuple[int, ...]
) -> None:
    logits = scores().to(dtype)
    expected = averaged(logits, 0.25)
    assert (expected != logits.argmax(1).numpy()).any()
    np.testing.assert_array_equal(labelled(logits, 0.25, sizes), expected)


def test_without_a_weight_every_slice_stands_for_itself() -> None:
    logits = scores()
    np.testing.assert_array_equal(labelled(logits, 0.0, (4, 7)), logits.argmax(1).numpy())


def test_a_single_slice_has_no_neighbours() -> None:
    logits = scores()[:1]
    labelling = Labelling((1, *SHAPE[1:]), 0.25)
    labelling.take(logits)
    np.testing.assert_array_equal(labelling.classes, logits.argmax(1).numpy())
