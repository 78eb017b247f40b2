"""Part of the way from where a training began to where it ended.

A fine-tuned network forgets some of what its start knew; a point between the
two often does better than either on scans that neither has seen.

Wortsman et al., CVPR 2022 (robust fine-tuning by averaging weights).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from models.backbone import freeze
from models.network import UNet
from models.state import State
from models.train import Start, Trained


@torch.no_grad()
def blended(start: Start, trained: Trained, share: float) -> Trained:
    """A backbone and states between two that belong together.

    Parameters
    ----------
    start : what `trained` went on from
    share : of the trained weights; 0: those of the start, 1: those of the end
    """
    begun, states = start
    spec = trained.backbone.spec
    network = UNet(replace(spec, training={**(spec.training or {}), "blend": share}))
    before, after = begun.network.state_dict(), trained.backbone.network.state_dict()
    network.load_state_dict({name: torch.lerp(before[name], after[name], share) for name in after})
    backbone = freeze(network)
    between = {
        name: State(torch.lerp(states[name].rows, state.rows, share), backbone.sha256)
        for name, state in trained.states.items()
    }
    return Trained(backbone, between, trained.losses)
