from __future__ import annotations

import numpy as np
import pytest
import torch

from models.dice import dice_scores
from models.losses import dice_cross_entropy, merge_unannotated, soft_dice


def confident(classes: torch.Tensor, count: int) -> torch.Tensor:
    return 20.0 * torch.nn.functional.one_hot(classes, count).permute(0, 3, 1, 2).float()


def test_the_right_answer_costs_nothing_and_a_wrong_one_much() -> None:
    classes = torch.randint(0, 4, (2, 8, 8))
    everything = torch.ones(2, 4, dtype=torch.bool)
    assert dice_cross_entropy(confident(classes, 4), classes, everything) < 1e-3
    assert dice_cross_entropy(confident((classes + 1) % 4, 4), classes, everything) > 2


def test_what_is_not_annotated_may_be_answered_as_anything_but_the_annotated() -> None:
    classes = torch.zeros(1, 4, 4, dtype=torch.int64)
    classes[0, :2] = 1
    annotated = torch.tensor([[True, True, False]])
    silent = classes.clone()
    found = classes.clone()
    found[0, 3] = 2
    costs = [
        float(dice_cross_entropy(confident(a, 3), classes, annotated)) for a in (silent, found)
    ]
    assert costs[0] == pytest.approx(costs[1], abs=1e-4)
    found[0, 3] = 1
    assert dice_cross_entropy(confident(found, 3), classes, annotated) > costs[0] + 0.5


def test_what_is_not_annotated_counts_as_background() -> None:
    logits = torch.randn(2, 5, 3, 3)
    annotated = torch.tensor([[True, True, False, True, False], [True, False, False, False, True]])
    classes = torch.arange(18).view(2, 3, 3) % 5
    picked, merged = merge_unannotated(torch.log_softmax(logits, 1), classes, annotated)
    probs = logits.softmax(1)
    for slice_, named in enumerate(([1, 3], [4])):
        rest = [k for k in range(5) if k not in named]
        for row in range(3):
            for column in range(3):
                answer = int(classes[slice_, row, column])
                wanted = [answer] if answer in named else rest
                expected = probs[slice_, wanted, row, column].sum()
                torch.testing.assert_close(picked[slice_, row, column].exp(), expected)
                assert int(merged[slice_, row, column]) == (answer if answer in named else 0)


def test_soft_dice_is_that_of_the_maps_of_all_classes() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(3, 5, 6, 7), torch.randint(0, 4, (3, 6, 7))
    annotated = torch.tensor([[True] * 5, [True] * 5, [True, False, True, True, True]])
    log_probs = logits.log_softmax(1)
    picked, classes = merge_unannotated(log_probs, classes, annotated)
    maps = torch.nn.functional.one_hot(classes, 5).permute(0, 3, 1, 2)
    given = log_probs.exp() * annotated[:, :, None, None]
    overlap = (given * maps).sum((0, 2, 3))
    size = given.sum((0, 2, 3)) + maps.sum((0, 2, 3))
    expected = (2 * overlap / size)[1:4].mean()  # nothing is of class 4
    found = soft_dice(log_probs.exp(), picked.exp(), classes, annotated)
    torch.testing.assert_close(found, expected)


def test_a_class_absent_from_the_batch_gives_no_constant() -> None:
    classes = torch.zeros(1, 8, 8, dtype=torch.int64)
    classes[0, 2:5, 2:5] = 1
    everything = torch.ones(1, 6, dtype=torch.bool)
    assert dice_cross_entropy(confident(classes, 6), classes, everything) < 1e-3


def test_dice_counts_a_missed_structure_as_zero_and_an_absent_one_not_at_all() -> None:
    reference = np.array([1, 1, 2, 2, 0, 0])
    answer = np.array([1, 1, 0, 0, 0, 0])
    scores = dice_scores(answer, reference, np.ones(4, bool))
    assert np.isnan(scores[0])
    assert np.isnan(scores[3])
    assert list(scores[1:3]) == [1.0, 0.0]


def test_dice_looks_at_annotated_classes_alone() -> None:
    scores = dice_scores(np.array([1, 2]), np.array([1, 1]), np.array([True, True, False]))
    assert scores[1] == pytest.approx(2 / 3)
    assert np.isnan(scores[2])
