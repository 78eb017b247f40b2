"""Batches depend on the step alone, and hold what they should."""

from __future__ import annotations

import numpy as np
import torch

from experiments.draws import Pool, mixed
from models.cases import LabelledSlices

CPU = torch.device("cpu")


def a_case(value: float, shown: list[int]) -> LabelledSlices:
    classes = np.zeros((len(shown), 4, 4), np.uint8)
    for index, count in enumerate(shown):
        classes[index].ravel()[:count] = np.arange(1, count + 1)
    images = np.full(classes.shape, value, np.float32)
    images += np.arange(len(shown), dtype=np.float32)[:, None, None]
    return LabelledSlices(images, classes, np.ones(4, bool))


def test_a_step_draws_the_same_batch_whenever_it_is_asked():
    pool = Pool([a_case(0, [1, 2, 3, 3])], seed=0, device=CPU)
    first, again = pool.draw(8, 5), pool.draw(8, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(pool.draw(8, 6)[0], first[0])


def test_empty_slices_are_never_drawn_and_full_ones_often():
    pool = Pool([a_case(0, [0, 1, 3])], seed=0, device=CPU)
    images, classes, annotated = pool.draw(400, 0)
    values = images[:, 0, 0, 0]
    assert images.shape == (400, 1, 4, 4)
    assert classes.dtype == torch.int64
    assert annotated.shape == (400, 4)
    assert set(values.tolist()) == {1.0, 2.0}
    assert (values == 2).sum() > 2 * (values == 1).sum()


def test_a_mixed_batch_has_a_share_of_every_domain():
    draws = [Pool([a_case(10 * n, [1, 1])], seed=n, device=CPU).draw for n in range(3)]
    together = mixed(draws)
    counts = []
    for step in range(3):
        images, _, _ = together(16, step)
        domains = (images[:, 0, 0, 0] / 10).floor().long()
        counts.append(torch.bincount(domains, minlength=3).tolist())
        assert len(images) == 16
    assert counts == [[6, 5, 5], [5, 5, 6], [5, 6, 5]]
