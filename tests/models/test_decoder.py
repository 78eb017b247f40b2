from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbone import Backbone, freeze
from models.decoder import SliceDecoder, argmax_classes
from models.evaluator import Evaluator
from models.network import UNet
from models.predict import Predictor
from tests.support.networks import random_state, small_spec

SHAPE = (11, 6, 7)
DTYPES = [torch.float32, torch.float64]  # averaged where they differ, or everywhere
SLICES = np.random.default_rng(0).random(SHAPE, np.float32)


def scores() -> torch.Tensor:
    """N K H W, smooth enough that neighbours often agree."""
    found = torch.randn(SHAPE[0], 5, *SHAPE[1:], generator=torch.Generator().manual_seed(3))
    return found + 2 * found[:1]


def labelled(logits: torch.Tensor, reach: int, sizes: tuple[int, ...]) -> np.ndarray:
    """Taken as the network would give them, in batches whose memory is written over."""
    decoder, at = SliceDecoder(SLICES, reach), 0
    given = mirror_every_second(logits) if reach else logits
    for size in sizes:
        assert not decoder.done
        batch = given[at : at + size].clone()
        decoder.add(batch)
        assert torch.equal(batch, given[at : at + size])
        batch.fill_(99.0)
        at += size
    assert decoder.done
    return decoder.classes


def mirror_every_second(slices: torch.Tensor) -> torch.Tensor:
    """N … H W, left and right swapped in slices 1, 3, 5."""
    return torch.stack([s.flip(-2) if n % 2 else s for n, s in enumerate(slices)])


def averaged(logits: torch.Tensor, weights: list[float]) -> np.ndarray:
    """The whole run at once, in the plainest way; scores as the scan lies."""
    reach = len(weights) // 2
    around = torch.cat([*[logits[:1]] * reach, logits, *[logits[-1:]] * reach])
    mixed = sum(weight * around[n : n + len(logits)] for n, weight in enumerate(weights))
    assert isinstance(mixed, torch.Tensor)
    return mixed.argmax(1).numpy()


@pytest.mark.parametrize(
    ("reach", "weights"), [(1, [1 / 4, 1 / 2, 1 / 4]), (2, [1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16])]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(11,), (4, 4, 3), (1, 1, 2, 1, 5, 1), (1,) * 11])
def test_slices_around_have_their_say_however_they_come(
    reach: int, weights: list[float], dtype: torch.dtype, sizes: tuple[int, ...]
) -> None:
    logits = scores().to(dtype)
    expected = averaged(logits, weights)
    assert (expected != logits.argmax(1).numpy()).any()
    np.testing.assert_array_equal(labelled(logits, reach, sizes), expected)


def test_every_second_slice_is_shown_in_the_mirror_and_the_scan_is_left_alone() -> None:
    before = SLICES.copy()
    shown = SliceDecoder(SLICES, 2).inputs
    np.testing.assert_array_equal(shown[::2], SLICES[::2])
    np.testing.assert_array_equal(shown[1::2], SLICES[1::2, ::-1])
    np.testing.assert_array_equal(SLICES, before)
    assert SliceDecoder(SLICES).inputs is SLICES


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_errs_to_one_side_is_evened_out_by_the_mirror(dtype: torch.dtype) -> None:
    """A network that adds to one side adds as much to the other: no stripe is left."""
    truth = torch.zeros(9, 2, 6, 4, dtype=dtype)
    truth[:, 1] = 0.1  # the second class, by little
    error = torch.zeros_like(truth)
    error[:, 0, :3] += 0.15  # the network prefers the first one, on its left
    slices = np.zeros((9, 6, 4), np.float32)
    decoder = SliceDecoder(slices, 2)
    decoder.add(mirror_every_second(truth) + error)
    np.testing.assert_array_equal(decoder.classes[2:-2], 1)
    alone = SliceDecoder(slices)
    alone.add(truth + error)
    assert (alone.classes == 0).any()


def test_without_reach_every_slice_stands_for_itself() -> None:
    logits = scores()
    np.testing.assert_array_equal(labelled(logits, 0, (4, 7)), logits.argmax(1).numpy())


def test_a_single_slice_has_none_around() -> None:
    logits = scores()[:1]
    decoder = SliceDecoder(SLICES[:1], 2)
    decoder.add(logits)
    np.testing.assert_array_equal(decoder.classes, logits.argmax(1).numpy())


def test_a_reach_below_none_is_refused() -> None:
    with pytest.raises(ValueError, match="reach"):
        replace(small_spec(), slice_reach=-1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_likeliest_class_is_the_first_of_those_with_the_highest_score(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    logits = scores().round().to(dtype).to(memory_format=layout)  # round: many are equal
    np.testing.assert_array_equal(argmax_classes(logits), logits.double().numpy().argmax(1))


def reaching_backbone() -> Backbone:
    torch.manual_seed(0)
    return freeze(UNet(replace(small_spec(), slice_reach=2)))


def test_only_slices_that_follow_one_another_are_averaged() -> None:
    backbone = reaching_backbone()
    predictor = Predictor(backbone, device=torch.device("cpu"), batch_slices=4)
    state = random_state(backbone, 1, head=True)
    row = predictor.bank.add(state)
    scan = np.random.default_rng(0).random((10, 32, 40), np.float32)
    domains = np.full(len(scan), row)

    def alone(slices: np.ndarray) -> torch.Tensor:
        """Scores of every slice, each computed by itself."""
        one = [predictor.logits(slices[n : n + 1], domains[:1]).clone() for n in range(len(scan))]
        return torch.cat(one)

    sparse = predictor.classes(scan, domains)
    np.testing.assert_array_equal(sparse, alone(scan).argmax(1).numpy())
    heard: list[int] = []
    run = predictor.classes(scan, domains, consecutive=True, on_slices=heard.append)
    seen = alone(mirror_every_second(torch.from_numpy(scan)).numpy())
    weights = [1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16]
    np.testing.assert_array_equal(run, averaged(mirror_every_second(seen), weights))
    assert heard == [4, 4, 2]
    assert (run != sparse).any()
    evaluator = Evaluator(backbone, torch.device("cpu"), torch.float32, batch_slices=3)
    agree = evaluator.classes(state, scan, consecutive=True) == run  # other batches round otherwise
    assert agree.mean() > 0.999
    assert (evaluator.classes(state, scan) == sparse).mean() > 0.999


def test_the_reach_belongs_to_what_names_a_backbone() -> None:
    reaching = reaching_backbone()
    torch.manual_seed(0)
    plain = freeze(UNet(small_spec()))
    assert reaching.sha256 != plain.sha256


def test_sagittal_slices_reach_nobody() -> None:
    assert replace(small_spec(), plane="sagittal").slice_axis == 0
    with pytest.raises(ValueError, match="mirror"):
        replace(small_spec(), plane="sagittal", slice_reach=2)
