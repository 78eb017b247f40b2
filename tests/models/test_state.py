from __future__ import annotations

import pytest
import torch

from models.backbone import (
    SHIPPED,
    SHIPPED_OLDER,
    BrokenBackboneError,
    load_backbone,
    save_backbone,
)
from models.packs import read_pack, read_states, write_pack
from models.state import BrokenStateError, State
from tests.support.networks import random_state, small_backbone


def test_a_state_comes_back_from_its_bytes_bit_for_bit() -> None:
    state = random_state(small_backbone(), 3)
    again = State.from_bytes(state.to_bytes(), backbone=state.backbone, sha256=state.sha256)
    assert torch.equal(again.rows, state.rows)
    assert again.to_bytes() == state.to_bytes()


def test_adapters_and_head_come_back_too_and_are_part_of_the_hash() -> None:
    backbone = small_backbone()
    state = random_state(backbone, 3, head=True, adapters=True)
    again = State.from_bytes(state.to_bytes(), backbone=state.backbone, sha256=state.sha256)
    assert again.adapters is not None
    assert state.adapters is not None
    assert torch.equal(again.adapters, state.adapters)
    again.check(backbone.spec, backbone.sha256)
    assert State(state.rows, state.backbone, state.head).sha256 != state.sha256
    with pytest.raises(BrokenStateError, match="adapters"):
        State(state.rows, state.backbone, None, state.adapters[1:]).check(
            backbone.spec, backbone.sha256
        )


def test_one_changed_byte_is_found() -> None:
    state = random_state(small_backbone(), 3)
    data = bytearray(state.to_bytes())
    data[-5] ^= 1
    with pytest.raises(BrokenStateError, match="hash"):
        State.from_bytes(bytes(data), backbone=state.backbone, sha256=state.sha256)


@pytest.mark.parametrize("data", [b"", b"no tensors", b"\x08" + bytes(7) + b"{}      "])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(BrokenStateError):
        State.from_bytes(data, backbone="x")


def test_the_hash_names_the_backbone_too() -> None:
    rows = random_state(small_backbone(), 3).rows
    assert State(rows, "a").sha256 != State(rows, "b").sha256


def test_a_pack_carries_a_state_and_its_facts() -> None:
    state = random_state(small_backbone(), 4)
    facts = {"backbone": state.backbone, "domain": "ward-7", "version": "2"}
    pack = read_pack(write_pack(state.to_bytes(), facts))
    assert (pack.sha256, pack.backbone) == (state.sha256, state.backbone)
    assert pack.facts["domain"] == "ward-7"
    assert pack.tensors == state.to_bytes()


def test_a_pack_changed_on_the_way_is_refused() -> None:
    state = random_state(small_backbone(), 4)
    data = bytearray(write_pack(state.to_bytes(), {"backbone": state.backbone}))
    data[-1] ^= 1
    with pytest.raises(BrokenStateError):
        read_pack(bytes(data))
    with pytest.raises(BrokenStateError):
        read_pack(b"not a pack")


def test_a_backbone_comes_back_from_its_folder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    backbone = small_backbone()
    save_backbone(backbone, tmp_path)
    assert load_backbone(tmp_path).sha256 == backbone.sha256


def test_a_backbone_whose_tensors_changed_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = save_backbone(small_backbone(), tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BrokenBackboneError):
        load_backbone(tmp_path)


THREE = {"sim-t1w-3t", "sim-t2w-3t", "sim-t1w-1p5t"}


def test_the_shipped_backbones_and_their_states_check() -> None:
    current = load_backbone(SHIPPED)
    assert set(read_states(SHIPPED, current)) == THREE | {"sim-pd-3t", "sim-flair-3t"}
    for folder in SHIPPED_OLDER:
        older = load_backbone(folder)
        assert older.sha256 != current.sha256
        assert set(read_states(folder, older)) == THREE
