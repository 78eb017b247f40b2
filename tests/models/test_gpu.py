from __future__ import annotations

import numpy as np
import pytest
import torch

from models.adapt import Tuning, adapt
from models.bench import Bench, mean_dice
from models.cases import Sampler
from models.predict import Predictor
from models.train import train
from tests.support.networks import discs, random_state, small_backbone, small_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_gpu_segments_adapts_and_leaves_the_backbone_on_the_cpu() -> None:
    cuda = torch.device("cuda")
    sources = {"plain": Sampler([discs(0, count=24)], 0).draw}
    found = train(small_spec(), sources, steps=120, batch_size=8, learning_rate=1e-2, device=cuda)
    bench = Bench(found.backbone, cuda, torch.float32)
    new = [discs(seed, contrast=0.4) for seed in (1, 2)]
    tuned = adapt(bench, found.states["plain"], new[:1], new[1:], Tuning(steps=40, stride=1))
    assert mean_dice(bench.score(tuned.state, new[1:])) > tuned.history[0].dice
    assert all(p.device.type == "cpu" for p in found.backbone.network.parameters())


def test_a_gpu_answers_a_slice_the_same_alone_and_in_company() -> None:
    backbone = small_backbone()
    predictor = Predictor(backbone, device=torch.device("cuda"))
    for seed in range(3):
        predictor.bank.add(random_state(backbone, seed))
    scan = np.random.default_rng(0).random((32, 32, 40), np.float32)
    mixed = predictor.logits(scan, np.arange(32) % 3)
    alone = predictor.logits(scan[4:5], np.array([1]))
    torch.testing.assert_close(mixed[4], alone[0], rtol=1e-4, atol=1e-4)
