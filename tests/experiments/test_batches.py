"""Batches depend on the step alone, and hold what they should."""

from __future__ import annotations

import numpy as np
import torch

from experiments.kit.batches import SlicePool, adaptation_batches, mixed
from experiments.kit.recipes import Recipe
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
    pool = SlicePool([a_case(0, [1, 2, 3, 3])], seed=0, device=CPU)
    first, again = pool.draw(8, 5), pool.draw(8, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(pool.draw(8, 6)[0], first[0])


def test_every_structure_is_drawn_as_often_as_every_other():
    # Structure 1 is on three slices, structure 2 on two of them, structure 3 on one.
    images, classes, annotated = SlicePool([a_case(0, [0, 1, 2, 3])], seed=0, device=CPU).draw(
        6000, 0
    )
    drawn = torch.bincount(images[:, 0, 0, 0].long(), minlength=4) / 6000
    assert images.shape == (6000, 1, 4, 4)
    assert classes.dtype == torch.int64
    assert annotated.shape == (6000, 4)
    assert drawn[0] == 0
    assert torch.allclose(drawn[1:], torch.tensor([2, 5, 11]) / 18, atol=0.02)


def test_a_crop_cuts_image_and_classes_alike():
    case = a_case(0, [1] * 3)
    case.images[:] = np.arange(16).reshape(4, 4)
    case.classes[:] = 1 + np.arange(16).reshape(4, 4) % 3
    pool = SlicePool([case], seed=0, device=CPU, crop=(2, 3))
    corners = set()
    for step in range(40):
        images, classes, _ = pool.draw(2, step)
        assert images.shape == (2, 1, 2, 3)
        assert torch.equal(1 + images[:, 0].long() % 3, classes)
        corners.add(int(images[0, 0, 0, 0]))
    assert corners == {0, 1, 4, 5, 8, 9}


def test_a_mixed_batch_has_a_share_of_every_domain():
    draws = [SlicePool([a_case(10 * n, [1, 1])], seed=n, device=CPU).draw for n in range(3)]
    together = mixed(draws)
    counts = []
    for step in range(3):
        images, _, _ = together(16, step)
        domains = (images[:, 0, 0, 0] / 10).floor().long()
        counts.append(torch.bincount(domains, minlength=3).tolist())
        assert len(images) == 16
    assert counts == [[6, 5, 5], [5, 5, 6], [5, 6, 5]]


def test_batches_of_an_adaptation_follow_from_the_recipes_seed_alone():
    case = a_case(0, [1, 2, 3, 3])
    recipe = Recipe(crop=(2, 2))
    first, again, other = (
        adaptation_batches([case], Recipe(seed=seed, crop=(2, 2))) for seed in (0, 0, 1)
    )
    for step in range(3):
        images = first(recipe.batch_size, step)[0]
        assert images.shape == (8, 1, 2, 2)
        assert torch.equal(images, again(recipe.batch_size, step)[0])
        assert not torch.equal(images, other(recipe.batch_size, step)[0])
