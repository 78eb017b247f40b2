from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from models.backends import EAGER, OPENVINO, BankedNetwork
from models.bank import Bank, affine, domain_parameters
from models.evaluator import Evaluator
from models.network import UNet
from models.predict import Predictor, choose_precision
from models.state import BrokenStateError, State
from tests.support.networks import (
    discs,
    nothing_beyond_the_border,
    random_state,
    small_backbone,
)

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed (extra `cpu`)"
)


def bank_of(count: int) -> tuple[Bank, list[State]]:
    backbone = small_backbone()
    bank = Bank(backbone)
    states = [random_state(backbone, seed, head=seed % 2 == 1) for seed in range(count)]
    for state in states:
        bank.add(state)
    return bank, states


def fingerprint(predictor: Predictor, scan: np.ndarray, domain: int) -> str:
    digest = hashlib.sha256()
    predictor.classes(scan, np.full(len(scan), domain), digest)
    return digest.hexdigest()


def test_a_mixed_batch_equals_batches_of_one_domain() -> None:
    backbone = small_backbone()
    bank, states = bank_of(5)
    network, scan = BankedNetwork(backbone.network), torch.rand(10, 1, 32, 40)
    domains = torch.arange(10) % 5
    with torch.no_grad():
        mixed = network(scan, *bank.gather(domains))
        for number in range(len(states)):
            own = bank.gather(torch.full((2,), number))
            alone = network(scan[domains == number], *own)
            torch.testing.assert_close(mixed[domains == number], alone, rtol=1e-5, atol=1e-5)


def test_what_a_slice_is_answered_does_not_depend_on_its_neighbours_by_one_bit() -> None:
    backbone = small_backbone()
    predictor = Predictor(backbone, device=CPU, batch_slices=4)
    for seed in range(3):
        predictor.bank.add(random_state(backbone, seed))
    scan = np.random.default_rng(0).random((4, 32, 40), np.float32)
    alone = predictor.logits(scan[:1], np.array([1]))
    beside_others = predictor.logits(scan, np.array([1, 0, 2, 0]))
    assert torch.equal(alone[0], beside_others[0])


def test_adding_domains_never_changes_an_old_domains_output() -> None:
    backbone = small_backbone()
    predictor = Predictor(backbone, device=CPU)
    first = predictor.bank.add(random_state(backbone, 0))
    scan = discs(1).images
    before = fingerprint(predictor, scan, first)
    for seed in range(1, 40):
        predictor.bank.add(random_state(backbone, seed))
    assert len(predictor.bank) == 40
    assert fingerprint(predictor, scan, first) == before


@pytest.mark.parametrize("backend", [EAGER, pytest.param(OPENVINO, marks=needs_openvino)])
def test_adapters_answer_for_their_domain_alone(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == OPENVINO:
        monkeypatch.setattr(UNet, "forward", nothing_beyond_the_border)
    backbone = small_backbone()
    predictor = Predictor(backbone, device=CPU, batch_slices=4, backend=backend)
    plain = random_state(backbone, 1)
    adapted = replace(random_state(backbone, 2, adapters=True), rows=plain.rows)
    ours, theirs = predictor.bank.add(plain), predictor.bank.add(adapted)
    scan = np.random.default_rng(0).random((4, 32, 40), np.float32)
    before = predictor.logits(scan, np.full(4, ours)).clone()
    with_adapters = predictor.logits(scan, np.full(4, theirs)).clone()
    evaluator = Evaluator(backbone, CPU, torch.float32)
    own = domain_parameters(adapted, backbone, CPU)
    expected = evaluator.forward(torch.from_numpy(scan)[:, None], own)
    torch.testing.assert_close(with_adapters, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(with_adapters, before, atol=0.01)
    assert torch.equal(predictor.logits(scan, np.full(4, ours)), before)
    with pytest.raises(ValueError, match="shares no batch"):
        predictor.logits(scan, np.array([ours, theirs, ours, ours]))


@needs_openvino
def test_domains_with_adapters_in_turn_answer_as_each_did_first() -> None:
    backbone = small_backbone()
    predictor = Predictor(backbone, device=CPU, batch_slices=4, backend=OPENVINO)
    rows = [predictor.bank.add(random_state(backbone, n, head=True, adapters=True)) for n in (1, 2)]
    scan = np.random.default_rng(0).random((4, 32, 40), np.float32)
    one, two, again = (predictor.logits(scan, np.full(4, row)).clone() for row in (*rows, rows[0]))
    assert torch.equal(one, again)
    assert not torch.allclose(one, two, atol=0.01)


def test_adapters_of_zero_change_nothing() -> None:
    backbone = small_backbone()
    predictor = Predictor(backbone, device=CPU)
    plain = random_state(backbone, 1)
    zero = replace(plain, adapters=torch.zeros(backbone.spec.adapter_size, dtype=torch.bfloat16))
    scan = np.random.default_rng(0).random((2, 32, 40), np.float32)
    rows = [predictor.bank.add(state) for state in (plain, zero)]
    first, second = (predictor.logits(scan, np.full(2, row)) for row in rows)
    assert torch.equal(first, second)


def test_a_head_of_its_own_answers_for_its_domain_alone() -> None:
    backbone = small_backbone()
    plain = random_state(backbone, 1)
    headed = State(plain.rows, plain.backbone, random_state(backbone, 2, head=True).head)
    bank = Bank(backbone)
    where = torch.tensor([bank.add(plain), bank.add(headed)])
    scan = torch.rand(1, 1, 32, 40).expand(2, -1, -1, -1)
    with torch.no_grad():
        ours, theirs = BankedNetwork(backbone.network)(scan, *bank.gather(where))
        shared = backbone.network(scan[:1], affine(bank.gather(where[:1])[0]))[0]
    torch.testing.assert_close(ours, shared, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, theirs, atol=0.01)


def test_the_same_state_is_kept_once() -> None:
    bank, states = bank_of(3)
    assert bank.add(states[1]) == bank.index(states[1].sha256) == 1
    assert len(bank) == 3


def test_a_domain_of_the_shipped_network_costs_less_than_sixteen_kilobytes() -> None:
    from models.backbone import load_backbone

    backbone = load_backbone()
    heads = len(backbone.spec.classes) * 33
    assert Bank(backbone).bytes_per_domain == (1408 * 2 + heads) * 4 < 16 * 1024


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows.index_put_((torch.tensor(0), torch.tensor(3)), torch.tensor(torch.nan)),
        lambda rows: rows.index_put_((torch.tensor(3), torch.tensor(0)), torch.tensor(-1.0)),
        lambda rows: rows[:, :-1],
    ],
    ids=["not finite", "negative variance", "wrong shape"],
)
def test_an_impossible_state_is_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    backbone = small_backbone()
    bank = Bank(backbone)
    rows = spoil(random_state(backbone, 0).rows.clone())
    with pytest.raises(BrokenStateError):
        bank.add(State(rows, backbone.sha256))
    assert len(bank) == 0


def test_a_state_of_another_backbone_is_refused() -> None:
    backbone = small_backbone()
    with pytest.raises(BrokenStateError, match="another backbone"):
        Bank(backbone).add(random_state(small_backbone(9), 0))


def test_the_precision_can_be_named() -> None:
    assert choose_precision("float32", CPU) is torch.float32
    assert choose_precision("bfloat16", CPU) is torch.bfloat16
