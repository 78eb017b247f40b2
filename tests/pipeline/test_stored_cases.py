"""Cases in files are the same cases, and none of them stays in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from models.adapt import Tuning, refit
from models.cases import LabelledSlices, Sampler, StoredSlices
from models.evaluator import Evaluator
from normbank.imaging.scan import Scan
from pipeline.cases import LabelledScan, StoredScan
from pipeline.splits import ScanSplit
from tests.support.networks import discs, random_state, small_backbone, small_spec


def head(number: int) -> LabelledScan:
    rng = np.random.default_rng(number)
    data = np.zeros((60, 70, 64), np.float32, order="F")
    data[10:50, 10:60, 10:54] = rng.random((40, 50, 44)) + 1
    reference = np.zeros(data.shape, np.uint8, order="F")
    reference[20:30, 20:30, 20:30] = 2
    return LabelledScan(f"c{number}", Scan(data, np.eye(4)), reference, frozenset(["hippocampus"]))


def test_a_stored_scan_is_the_scan_voxel_by_voxel_and_in_its_order(tmp_path: Path) -> None:
    case = head(1)
    kept = StoredScan.of(case, tmp_path)
    opened = kept.opened()
    assert opened.scan.data.tobytes("A") == case.scan.data.tobytes("A")
    assert opened.scan.data.flags.f_contiguous
    np.testing.assert_array_equal(opened.reference, case.reference)
    assert (kept.id, kept.annotates("hippocampus"), kept.annotates("thalamus")) == (
        "c1",
        True,
        False,
    )


def test_stored_slices_are_drawn_scored_and_learnt_from_as_those_in_memory(tmp_path: Path) -> None:
    cases = [discs(seed) for seed in range(3)]
    stored = [StoredSlices.of(case, tmp_path, str(n)) for n, case in enumerate(cases)]
    for ours, theirs in zip(Sampler(stored, 5).draw(16), Sampler(cases, 5).draw(16), strict=True):
        assert torch.equal(ours, theirs)
    backbone = small_backbone()
    evaluator = Evaluator(backbone, torch.device("cpu"), torch.float32)
    parts = [[evaluator.excerpt(case, 2) for case in group] for group in (cases, stored)]
    for ours, theirs in zip(*parts, strict=True):
        np.testing.assert_array_equal(ours.opened().images, theirs.opened().images)
    state, tuning = random_state(backbone, 1), Tuning(steps=3, batch_size=4)
    np.testing.assert_array_equal(*(evaluator.score(state, part) for part in parts))
    learnt = [refit(evaluator, state, group, tuning) for group in (cases, stored)]
    assert learnt[0].sha256 == learnt[1].sha256


def test_what_a_network_sees_of_many_cases_is_not_in_memory(tmp_path: Path) -> None:
    networks = cast(Any, SimpleNamespace(spec=small_spec()))
    cases = [StoredScan.of(head(number), tmp_path) for number in range(6)]
    tracemalloc.start()
    slices = ScanSplit.of(networks, cases, tmp_path).outlined()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(slices) == 3
    one = cast(LabelledSlices, slices[0].opened())
    assert held < one.images.nbytes
