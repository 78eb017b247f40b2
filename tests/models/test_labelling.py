from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbone import Backbone, freeze
from models.bench import Bench
from models.labelling import Labelling
from models.network import UNet
from models.predict import Predictor
from tests.support.networks import random_state, small_spec

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


def test_a_weight_that_turns_scores_round_is_refused() -> None:
    with pytest.raises(ValueError, match=r"between 0 and 0\.5"):
        Labelling(SHAPE, 0.6)


def weighted_backbone() -> Backbone:
    torch.manual_seed(0)
    return freeze(UNet(replace(small_spec(), neighbour_weight=0.25)))


def test_only_slices_that_follow_one_another_are_averaged() -> None:
    backbone = weighted_backbone()
    predictor = Predictor(backbone, device=torch.device("cpu"), batch_slices=4)
    state = random_state(backbone, 1, head=True)
    row = predictor.bank.add(state)
    scan = np.random.default_rng(0).random((10, 32, 40), np.float32)
    domains = np.full(len(scan), row)
    logits = torch.cat(
        [predictor.logits(scan[n : n + 1], domains[:1]).clone() for n in range(len(scan))]
    )
    sparse = predictor.classes(scan, domains)
    np.testing.assert_array_equal(sparse, logits.argmax(1).numpy())
    heard: list[int] = []
    run = predictor.classes(scan, domains, consecutive=True, told=heard.append)
    np.testing.assert_array_equal(run, averaged(logits, 0.25))
    assert heard == [4, 4, 2]
    assert (run != sparse).any()
    bench = Bench(backbone, torch.device("cpu"), torch.float32, batch_slices=3)
    agree = bench.classes(state, scan, consecutive=True) == run  # other batches round otherwise
    assert agree.mean() > 0.999
    assert (bench.classes(state, scan) == sparse).mean() > 0.999


def test_the_weight_belongs_to_what_names_a_backbone() -> None:
    weighted = weighted_backbone()
    torch.manual_seed(0)
    plain = freeze(UNet(small_spec()))
    assert weighted.sha256 != plain.sha256
