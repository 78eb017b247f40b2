"""Training of the initial network on several domains at once.

Part A of Karani et al., MICCAI 2018, section 2: every batch holds slices of
one domain, the domains take turns, a step moves the shared filters and the
batch norm of its own domain; every other domain's stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.backbone import Backbone, freeze
from models.losses import dice_cross_entropy
from models.network import UNet
from models.normalise import TrainableState
from models.spec import BackboneSpec
from models.state import State

Source = Callable[[int], tuple[Tensor, Tensor, Tensor]]
"""count -> images N 1 H W, classes N H W int64, annotated N K bool, of one domain."""


@dataclass(frozen=True)
class Trained:
    """A network that has become a backbone, with the states it was trained with.

    Attributes
    ----------
    losses : of every step, in order
    """

    backbone: Backbone
    states: Mapping[str, State]
    losses: tuple[float, ...]


def train(
    spec: BackboneSpec,
    sources: Mapping[str, Source],
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Trained:
    """Train the shared filters and one state per domain.

    Parameters
    ----------
    spec : of the network to be
    sources : batches of every domain, by its name
    steps : over all domains together; the learning rate falls to 0 as a cosine
    seed : of the initial weights; the batches' draws are the sources' affair
    report : told every step and its loss

    Returns
    -------
    Trained
        Frozen, on the CPU.
    """
    device = torch.device(device)
    torch.manual_seed(seed)
    network = UNet(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    initial = State.initial(spec, backbone="")
    learners = {name: TrainableState(initial, spec, device) for name in sources}
    groups = [{"params": list(network.parameters())}]
    groups += [{"params": learner.parameters} for learner in learners.values()]
    optimiser = torch.optim.Adam(groups, lr=learning_rate)
    names = list(sources)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        name = names[step % len(names)]
        images, classes, annotated = (t.to(device) for t in sources[name](batch_size))
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = network(images, learners[name])
        loss = dice_cross_entropy(logits, classes, annotated)
        # Without a gradient Adam leaves the other domains' tensors alone.
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        report(step + 1, losses[-1])
    backbone = freeze(network.to("cpu"))
    states = {
        name: State(learner.snapshot().rows, backbone.sha256) for name, learner in learners.items()
    }
    return Trained(backbone, states, tuple(losses))
