from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from models.backbone import SHIPPED, freeze, load_backbone
from models.bank import affine
from models.network import UNet
from models.normalise import TrainableState
from models.spec import BackboneSpec
from models.state import State
from tests.support.networks import random_state, small_backbone, small_spec


def test_the_shipped_network_has_the_published_size() -> None:
    spec = load_backbone(SHIPPED).spec
    network = UNet(spec)
    assert spec.channels == 1408
    assert sum(w.numel() for w in network.convolutions.values()) == 1_944_864
    assert sum(p.numel() for p in network.head.parameters()) == 18 * 33
    assert len(spec.layers) == 14


def test_loading_a_backbone_loads_no_compiler() -> None:
    # It would take every process of the service seconds to start.
    code = (
        "import sys, models.backbone as b; b.load_backbone(); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_scores_keep_the_size_of_the_slice() -> None:
    backbone = small_backbone()
    normalise = affine(random_state(backbone, 1).affine(1e-5)[None])
    assert backbone.network(torch.rand(2, 1, 48, 64), normalise).shape == (2, 4, 48, 64)


def test_a_slice_can_be_shown_with_its_neighbours() -> None:
    spec = replace(small_spec(), inputs=3)
    torch.manual_seed(0)
    backbone = freeze(UNet(spec))
    normalise = affine(random_state(backbone, 1).affine(1e-5)[None])
    shown = torch.rand(2, 3, 16, 24)
    scores = backbone.network(shown, normalise)
    assert scores.shape == (2, 4, 16, 24)
    changed = backbone.network(shown * torch.tensor([1.0, 1.0, 0.5]).view(1, 3, 1, 1), normalise)
    assert not torch.equal(scores, changed)


def test_one_slice_of_an_even_number_is_not_the_middle_one() -> None:
    with pytest.raises(ValueError, match="middle"):
        replace(small_spec(), inputs=2)


def test_serving_gives_what_an_ordinary_batch_norm_in_evaluation_mode_gives() -> None:
    backbone = small_backbone()
    state = random_state(backbone, 2)
    gamma, beta, mean, var = state.rows

    def reference(layer, features):  # type: ignore[no-untyped-def]
        at = slice(layer.start, layer.start + layer.channels)
        norm = torch.nn.BatchNorm2d(layer.channels, eps=1e-5).eval()
        norm.load_state_dict(
            {
                "weight": gamma[at],
                "bias": beta[at],
                "running_mean": mean[at],
                "running_var": var[at],
                "num_batches_tracked": torch.tensor(0),
            }
        )
        return torch.relu(norm(features))

    scan = torch.rand(3, 1, 32, 40)
    with torch.no_grad():
        served = backbone.network(scan, affine(state.affine(1e-5)[None]))
        expected = backbone.network(scan, reference)
    torch.testing.assert_close(served, expected, rtol=1e-4, atol=1e-4)


def test_training_mode_uses_the_batch_and_moves_only_its_own_statistics() -> None:
    backbone = small_backbone()
    state = State.initial(small_spec(), backbone.sha256)
    before = state.sha256
    learner = TrainableState(state, small_spec(), torch.device("cpu"))
    backbone.network(torch.rand(4, 1, 32, 40), learner)
    assert state.sha256 == before
    assert learner.snapshot().sha256 != before
    assert not torch.equal(learner.mean, state.rows[2])


def test_a_spec_survives_its_own_json() -> None:
    spec = small_spec()
    assert type(spec).from_json(spec.to_json()) == spec


def test_a_spec_written_before_there_were_neighbours_shows_one_slice() -> None:
    values = json.loads(small_spec().to_json())
    del values["inputs"]
    assert BackboneSpec.from_json(json.dumps(values)) == small_spec()


def test_the_plane_decides_what_a_slice_is() -> None:
    spec = replace(small_spec(), window=(16, 24, 32))
    assert (spec.slice_axis, spec.slice_shape) == (2, (16, 24))
    coronal = replace(spec, plane="coronal")
    assert (coronal.slice_axis, coronal.slice_shape) == (1, (16, 32))
