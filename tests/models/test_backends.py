"""Whatever runs the network gives its answers, domains mixed or not."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from models import backends, selection
from models.backbone import Backbone
from models.backends import EAGER, INDUCTOR, OPENVINO, BackendError, CompileTarget, has_compiler
from models.network import UNet
from models.predict import Predictor
from models.quantization import activation_ranges
from models.selection import choose
from tests.support.networks import nothing_beyond_the_border, random_state, small_backbone

CPU = torch.device("cpu")
TARGET = CompileTarget(CPU, torch.float32, (4, 1, 32, 40))
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed (extra `cpu`)"
)
OTHERS = [
    pytest.param(OPENVINO, marks=needs_openvino),
    pytest.param(INDUCTOR, marks=pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")),
]


def ranged_backbone() -> Backbone:
    """One whose activations are known as far as its states tell."""
    backbone = small_backbone()
    states = [random_state(backbone, seed) for seed in range(3)]
    return replace(backbone, ranges=activation_ranges(states, backbone.spec))


def predictor_on(backend: str, precision: torch.dtype = torch.float32) -> Predictor:
    backbone = ranged_backbone()
    predictor = Predictor(
        backbone, device=CPU, precision=precision, batch_slices=4, backend=backend
    )
    for seed in range(3):
        predictor.bank.add(random_state(backbone, seed, head=seed == 1))
    return predictor


@pytest.fixture(scope="module", params=OTHERS)
def other(request: pytest.FixtureRequest) -> Predictor:
    return predictor_on(request.param)


@needs_openvino
def test_bfloat16_changes_scores_a_little_and_no_bits_by_company() -> None:
    exact, rounded = predictor_on(OPENVINO), predictor_on(OPENVINO, torch.bfloat16)
    domains = np.array([1, 0, 2, 0])
    expected, found = exact.logits(scan(), domains), rounded.logits(scan(), domains).clone()
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
    moved = rounded.logits(np.roll(scan(), 1, axis=0), np.roll(domains, 1))
    assert torch.equal(moved.roll(-1, 0), found)


def scan() -> np.ndarray:
    return np.random.default_rng(0).random((4, 32, 40), np.float32)


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_scores_are_those_of_plain_torch(
    other: Predictor, domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other.selection.backend.name == OPENVINO:
        monkeypatch.setattr(UNet, "forward", nothing_beyond_the_border)
    domains = np.full(4, domain)
    expected, found = predictor_on(EAGER).logits(scan(), domains), other.logits(scan(), domains)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)


@needs_openvino
def test_int8_scores_are_nearly_those_of_float_and_no_bits_by_company() -> None:
    exact, rounded = (predictor_on(OPENVINO, one) for one in (torch.float32, torch.int8))
    domains = np.array([1, 0, 2, 0])
    expected, found = exact.logits(scan(), domains), rounded.logits(scan(), domains).clone()
    spread = float(expected.std())
    assert 0 < float((found - expected).abs().mean()) < 0.1 * spread
    moved = rounded.logits(np.roll(scan(), 1, axis=0), np.roll(domains, 1))
    assert torch.equal(moved.roll(-1, 0), found)
    for place in range(4):
        alone = rounded.logits(scan()[place : place + 1], domains[place : place + 1])
        assert torch.equal(alone[0], found[place])


@needs_openvino
def test_int8_bits_do_not_depend_on_the_number_of_threads() -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(predictor_on(OPENVINO, torch.int8).logits(scan(), np.arange(4) % 3).clone())
    assert torch.equal(*found)


@needs_openvino
def test_int8_needs_ranges() -> None:
    unknown = replace(small_backbone(), ranges=None)
    with pytest.raises(BackendError, match="int8 needs the states"):
        choose(unknown, TARGET, OPENVINO, torch.int8)


@needs_openvino
def test_a_domain_with_adapters_gets_the_same_scores_whatever_its_precision() -> None:
    backbone, domains = ranged_backbone(), np.zeros(4, np.int64)
    state = random_state(backbone, 7, head=True, adapters=True)
    found = []
    for precision in (torch.float32, torch.int8):
        predictor = Predictor(
            backbone, device=CPU, precision=precision, batch_slices=4, backend=OPENVINO
        )
        predictor.bank.add(state)
        found.append(predictor.logits(scan(), domains).clone())
    assert float((found[0] - found[1]).abs().mean()) < 0.15 * float(found[0].std())


def test_smaller_slices_are_answered_too(other: Predictor) -> None:
    part = np.ascontiguousarray(scan()[:, :24, :32])
    first = other.logits(part, np.zeros(4, np.int64)).clone()
    other.logits(scan(), np.zeros(4, np.int64))  # leaves something in the memory of batches
    assert first.shape[2:] == (24, 32)
    assert torch.equal(other.logits(part, np.zeros(4, np.int64)), first)


def test_a_slice_gets_the_same_bits_at_any_place_in_any_company(other: Predictor) -> None:
    alone = other.logits(scan()[:1], np.array([1]))[0].clone()
    for place in range(4):
        slices = np.roll(scan(), place, axis=0)
        domains = np.roll(np.array([1, 0, 2, 0]), place)
        assert torch.equal(other.logits(slices, domains)[place], alone)


def test_domains_that_come_later_change_nothing(other: Predictor) -> None:
    before = other.logits(scan(), np.zeros(4, np.int64)).clone()
    for seed in range(10, 40):
        other.bank.add(random_state(small_backbone(), seed))
    assert torch.equal(other.logits(scan(), np.zeros(4, np.int64)), before)


def with_speeds(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Backends that compute as plain torch does and are timed as told."""

    def maker(name: str) -> type[backends.Eager]:
        return type(name, (backends.Eager,), {"name": name})

    monkeypatch.setattr(selection, "MAKERS", {name: maker(name) for name in seconds})
    ways = tuple((name, torch.float32) for name in seconds)
    monkeypatch.setattr(selection, "candidates", lambda _device: ways)
    monkeypatch.setattr(selection, "_timed", lambda backend, *_: lambda: seconds[backend.name])


def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    with_speeds(monkeypatch, openvino=0.4, eager=0.2)
    found = choose(small_backbone(), TARGET)
    assert found.backend.name == EAGER
    assert found.ms_per_slice == {"openvino float32": 100.0, "eager float32": 50.0}


def test_a_close_race_is_decided_by_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with_speeds(monkeypatch, openvino=0.22, eager=0.2)
    assert choose(small_backbone(), TARGET).backend.name == OPENVINO


def test_auto_goes_on_without_one_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_compiler", lambda: False)
    for module in (backends, selection):
        monkeypatch.setattr(module, "find_spec", lambda _name: None)
    found = choose(small_backbone(), TARGET)
    assert found.backend.name == EAGER
    assert set(found.refused.values()) == {"no C++ compiler is installed"}
    assert all(name.startswith(EAGER) for name in found.ms_per_slice)


def test_one_that_was_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (backends, selection):
        monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(BackendError, match="not installed"):
        choose(small_backbone(), TARGET, OPENVINO)
    with pytest.raises(BackendError, match="there are openvino, inductor, eager"):
        choose(small_backbone(), TARGET, "tpu")
