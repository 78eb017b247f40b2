"""The precision of learning: what is asked for, or what is clearly faster here."""

from __future__ import annotations

import torch

from models.pace import faster, learning_precision
from tests.support.networks import small_backbone

CPU = torch.device("cpu")


def test_a_precision_that_is_asked_for_is_taken() -> None:
    assert learning_precision("float32", small_backbone(), CPU) is torch.float32
    assert learning_precision("bfloat16", small_backbone(), CPU) is torch.bfloat16


def test_bfloat16_has_to_be_clearly_faster() -> None:
    assert faster(1.0, 0.5) is torch.bfloat16
    assert faster(1.0, 0.9) is torch.float32
    assert faster(0.5, 1.0) is torch.float32


def test_a_process_measures_once_and_keeps_to_it() -> None:
    backbone = small_backbone()
    first = learning_precision("auto", backbone, CPU)
    assert first in (torch.float32, torch.bfloat16)
    assert all(learning_precision("auto", backbone, CPU) is first for _ in range(20))
