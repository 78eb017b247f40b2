"""What a device must keep to: the CPU always, a GPU where there is one (`pytest -m gpu`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.adapt import Tuning, adapt, refit
from models.backbone import SHIPPED, Backbone, freeze, load_backbone
from models.backends import EAGER, MAKERS, Eager
from models.cases import Sampler
from models.evaluator import Evaluator, mean_dice
from models.nearest import nearest
from models.network import UNet
from models.packs import read_states
from models.predict import Predictor
from models.train import train
from normbank.anatomy import labels_to_classes
from normbank.imaging.scan import Scan
from pipeline.crop import crop_to_outline
from simulate import SCANNERS, scan
from simulate.phantom import draw_head, head_affine
from tests.support.networks import discs, random_state, small_backbone, small_spec

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
TUNING = Tuning(steps=12, validate_every=6, stride=1)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def slices(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, 32, 40), np.float32)


def stocked(
    device: torch.device, precision: torch.dtype = torch.float32, adapted: int = 0
) -> Predictor:
    """Three plain domains, and some with adapters behind them."""
    backbone = small_backbone()
    predictor = Predictor(backbone, device=device, precision=precision, batch_slices=8)
    for seed in range(3 + adapted):
        predictor.bank.add(random_state(backbone, seed, head=seed > 0, adapters=seed >= 3))
    return predictor


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_mixed_batch_has_the_bits_of_one_domain_batches(
    device: torch.device, precision: torch.dtype
) -> None:
    predictor, seen, domains = stocked(device, precision), slices(8), np.arange(8) % 3
    mixed = predictor.logits(seen, domains).clone()
    for domain in range(3):
        single = predictor.logits(seen, np.full(8, domain))
        assert torch.equal(mixed[domains == domain], single[domains == domain])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_slice_is_answered_the_same_beside_other_slices_and_domains(
    device: torch.device, precision: torch.dtype
) -> None:
    predictor, seen, domains = stocked(device, precision), slices(8), np.arange(8) % 3
    before = predictor.logits(seen, domains)[3].clone()
    others, elsewhere = slices(8, seed=1), (domains + 1) % 3
    others[3], elsewhere[3] = seen[3], domains[3]
    assert torch.equal(predictor.logits(others, elsewhere)[3], before)


def test_domains_with_adapters_answer_the_same_whoever_came_before(device: torch.device) -> None:
    predictor, seen = stocked(device, adapted=2), slices(8)
    rows = [np.full(8, domain) for domain in (3, 4)]
    first = [predictor.logits(seen, row).clone() for row in rows]
    predictor.logits(slices(8, seed=1), np.arange(8) % 3)
    again = [predictor.logits(seen, row).clone() for row in reversed(rows)]
    assert torch.equal(first[0], again[1])
    assert torch.equal(first[1], again[0])
    assert not torch.equal(first[0], first[1])


def test_probing_and_adapting_leave_every_old_domain_as_it_was(device: torch.device) -> None:
    predictor = stocked(device, adapted=1)
    backbone, seen = small_backbone(), slices(8)
    old = [predictor.logits(seen, np.full(8, domain)).clone() for domain in range(4)]
    evaluator = Evaluator(backbone, device, torch.float32)
    states = {str(seed): random_state(backbone, seed) for seed in range(3)}
    cases = [discs(1), discs(2)]
    found = nearest(evaluator, states, cases)
    tuned = refit(evaluator, states[found[0].ref], cases, TUNING)
    predictor.bank.add(tuned)
    predictor.logits(seen, np.full(8, 4))
    for domain, before in enumerate(old):
        assert torch.equal(predictor.logits(seen, np.full(8, domain)), before)


def test_an_adaptation_repeats_itself_by_its_seed(device: torch.device) -> None:
    backbone = small_backbone()
    evaluator = Evaluator(backbone, device, torch.float32)
    first, second, other = (
        refit(
            evaluator, random_state(backbone, 0), [discs(1), discs(2)], replace(TUNING, seed=seed)
        )
        for seed in (5, 5, 6)
    )
    assert first.sha256 == second.sha256
    assert first.sha256 != other.sha256


def test_a_device_learns_a_new_domain_and_leaves_the_backbone_on_the_cpu(
    device: torch.device,
) -> None:
    sources = {"plain": Sampler([discs(0, count=24)], 0).draw}
    found = train(small_spec(), sources, steps=120, batch_size=8, learning_rate=1e-2, device=device)
    evaluator = Evaluator(found.backbone, device, torch.float32)
    new = [discs(seed, contrast=0.4) for seed in (1, 2)]
    tuned = adapt(evaluator, found.states["plain"], new[:1], new[1:], Tuning(steps=40, stride=1))
    assert mean_dice(evaluator.score(tuned.state, new[1:])) > tuned.history[0].dice
    assert all(p.device.type == "cpu" for p in found.backbone.network.parameters())


class Cramped(Eager):
    """PyTorch on a device whose memory holds so many slices."""

    room = 8

    def run(self, slices: torch.Tensor, table: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        if len(slices) > self.room:
            raise torch.OutOfMemoryError("no room")
        return super().run(slices, table, heads)


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Cramped]]:
    monkeypatch.setitem(MAKERS, EAGER, Cramped)  # type: ignore[misc]
    yield Cramped
    Cramped.room = 8


def test_a_batch_that_does_not_fit_is_halved_and_answered(cramped: type[Cramped]) -> None:
    device = torch.device("cpu")
    predictor, seen, domains = stocked(device), slices(8), np.arange(8) % 3
    wanted = predictor.logits(seen, domains).clone()
    cramped.room = 2
    torch.testing.assert_close(predictor.logits(seen, domains), wanted)
    assert predictor.batch_slices == 2
    labels = predictor.classes(slices(11), np.arange(11) % 3)
    assert labels.shape == (11, 32, 40)


def test_classes_stay_whole_when_the_batch_is_halved_on_the_way(cramped: type[Cramped]) -> None:
    predictor, seen, domains = stocked(torch.device("cpu")), slices(19), np.arange(19) % 3
    wanted = predictor.classes(seen, domains)

    def shrink(_count: int) -> None:
        cramped.room = 4

    assert np.array_equal(predictor.classes(seen, domains, on_slices=shrink), wanted)
    assert predictor.batch_slices == 4


def test_what_does_not_fit_one_by_one_is_an_error(cramped: type[Cramped]) -> None:
    predictor = stocked(torch.device("cpu"))
    cramped.room = 0
    with pytest.raises(Exception, match="no room"):
        predictor.logits(slices(2), np.zeros(2, np.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_full_gpu_halves_the_batch_and_answers() -> None:
    torch.manual_seed(0)
    backbone = freeze(UNet(replace(small_spec(), window=(192, 224, 16))))
    cuda, count = torch.device("cuda"), 64
    predictor = Predictor(backbone, device=cuda, batch_slices=count)
    predictor.bank.add(random_state(backbone, 0))
    seen = np.random.default_rng(0).random((count, 192, 224), np.float32)
    domains = np.zeros(count, np.int64)
    wanted = predictor.logits(seen, domains).cpu()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    limit = torch.cuda.memory_reserved() + 200 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        found = predictor.logits(seen, domains).cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert predictor.batch_slices < count
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_labels_of_a_gpu_are_those_of_the_cpu() -> None:
    backbone = load_backbone()
    seen, brain = phantom(backbone)
    state = read_states(SHIPPED, backbone)["sim-t1w-3t"]
    labels = []
    for device in map(torch.device, ("cpu", "cuda")):
        predictor = Predictor(backbone, device=device)
        row = predictor.bank.add(state)
        labels.append(predictor.classes(seen, np.full(len(seen), row), consecutive=True))
    assert brain.any()
    assert (labels[0] != labels[1]).mean() <= 0.001


def phantom(backbone: Backbone) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Some slices through the middle of a drawn head, and their classes."""
    shape, spacing = (96, 112, 112), 2.0
    drawn = scan(
        draw_head(0, shape, spacing), head_affine(shape, spacing), SCANNERS["d1-t1w-3t"], 0
    )
    cropped = crop_to_outline(Scan(drawn.data, drawn.affine), backbone.spec)
    ids = np.where(drawn.labels < 500, drawn.labels, 0).astype(np.int32)
    classes = labels_to_classes(ids, "freesurfer", backbone.spec.classes)
    middle = slice(60, 100)
    truth = cropped.label_slices(classes, len(backbone.spec.classes))
    return cropped.slices[middle], truth[middle]
