from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from experiments.recipe.cases import SPEC
from experiments.recipe.learn import UNSURE, StudyTrainer, Variant, order
from experiments.recipe.report import scores, table
from experiments.recipe.score import reached, turned, with_neighbours
from models.losses import dice_cross_entropy


def test_the_outermost_slice_stands_for_those_beyond() -> None:
    slices = np.arange(4.0)[:, None, None]
    shown = with_neighbours(slices, np.array([0, 2, 3]), 3)
    assert shown[..., 0, 0].tolist() == [[0, 0, 1], [1, 2, 3], [2, 3, 3]]


def test_slices_of_two_planes_meet_in_one_volume() -> None:
    volume = np.random.default_rng(0).random((3, 4, 5))  # Z X Y
    coronal = turned(volume, "coronal")  # Y X Z
    assert coronal.shape == (5, 4, 3)
    assert coronal[4, 1, 2] == volume[2, 1, 4]


def test_an_average_over_slices_keeps_what_is_the_same_in_all() -> None:
    same = np.ones((5, 2, 3, 3), np.float32)
    np.testing.assert_allclose(reached(same, 1), same)


def test_the_planes_take_turns_in_the_same_number_of_steps() -> None:
    one, two = (
        order(Variant("a", steps=50)),
        order(Variant("b", planes=("axial", "coronal"), steps=50)),
    )
    assert len(one) == len(two) == 50
    assert sum(name.endswith("/coronal") for name in two) == 25


def test_the_loss_is_the_products_and_leaves_out_what_is_unsure() -> None:
    trainer = StudyTrainer(SPEC, ["one"], steps=1)
    logits = torch.randn(2, 18, 8, 8, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(128).view(2, 8, 8) % 18
    annotated = torch.ones(2, 18, dtype=torch.bool)
    ours = trainer._loss(logits, classes, annotated)
    torch.testing.assert_close(ours, dice_cross_entropy(logits, classes, annotated))
    classes[:, :, 4:] = UNSURE
    part = trainer._loss(logits, classes, annotated)
    sure = dice_cross_entropy(logits[..., :4], classes[..., :4], annotated)
    torch.testing.assert_close(part, sure)


def test_every_real_scanner_counts_with_its_best_state() -> None:
    found = [
        ("sim-t1w-3t", "sim-t1w-3t", "0.5"),
        ("oasis", "a", "0.1"),
        ("oasis", "b", "0.3"),
        ("georgetown", "a", "0.4"),
        ("georgetown", "b", "0.2"),
    ]
    rows = [dict(zip(("scans", "state", "mean_dice"), row, strict=True)) for row in found]
    facts = {"variant": "a", "way": "axial", "steps": 8, "batch_size": 2, "learning_rate": 0.01}
    facts |= {"parameters": 1234, "train_cpu_s": 5}
    scans = pd.DataFrame(
        {**facts, **row, "weights": kind, "mean_dice": float(row["mean_dice"]) - less}
        for kind, less in (("last", 0.0), ("averaged", 0.03))
        for row in rows
    )
    run = scores(scans).loc[("a", "axial")]
    np.testing.assert_allclose(run[["simulated", "oasis", "georgetown"]], (0.5, 0.3, 0.4))
    np.testing.assert_allclose(run[["mean", "averaged"]], (0.4, 0.37))
    last = [cell.strip() for cell in table(scans).splitlines()[-1].strip("|").split("|")]
    assert last == [
        *("a", "axial", "8 × 2", "0.01", "1,234", "5"),
        *("0.5000", "0.3000", "0.4000", "0.4000", "0.3700"),
    ]
