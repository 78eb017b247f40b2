"""Training of a network's shared filters, on one domain or on several at once.

Part A of Karani et al., MICCAI 2018, section 2: every batch holds slices of
one domain, the domains take turns, a step moves the shared filters and the
batch norm of its own domain; every other domain's stays as it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.backbone import Backbone, freeze
from models.losses import dice_cross_entropy
from models.network import UNet
from models.normalise import TrainableState
from models.spec import BackboneSpec
from models.state import State

Source = Callable[[int], tuple[Tensor, Tensor, Tensor]]
"""count -> images N C H W, classes N H W int64, annotated N K bool, of one domain."""

Start = tuple[Backbone, Mapping[str, State]]
"""A network to go on from, with a state for every domain that is trained."""


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


class Trainer:
    """A training that can be looked at, stored and taken up again between steps.

    Parameters
    ----------
    spec : of the network to be
    domains : names; each has a batch norm of its own
    steps : over all domains together; the learning rate falls to 0 as a cosine
    warm_up : steps over which the learning rate rises first
    seed : of the initial weights; the batches' draws are the caller's affair
    start : trained further, its tensors copied; its spec must be `spec`
    decay : of the running average that `result` can give instead of the last
        step's tensors; None: there is none

    Notes
    -----
    Tarvainen and Valpola, NeurIPS 2017, for the average of weights.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        domains: Sequence[str],
        *,
        steps: int,
        learning_rate: float = 1e-3,
        warm_up: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
        start: Start | None = None,
        decay: float | None = None,
    ) -> None:
        self.steps, self.done = steps, 0
        self.losses: list[float] = []
        self._device, self._precision = torch.device(device), precision
        self._learning_rate, self._warm_up = learning_rate, warm_up
        torch.manual_seed(seed)
        network = UNet(spec)
        states = {name: State.initial(spec, backbone="") for name in domains}
        if start is not None:
            network.load_state_dict(start[0].network.state_dict())
            states = {name: start[1][name] for name in domains}
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._learners = {
            name: TrainableState(state, spec, self._device) for name, state in states.items()
        }
        groups = [{"params": list(self._network.parameters())}]
        groups += [{"params": learner.parameters} for learner in self._learners.values()]
        self._optimiser = torch.optim.Adam(groups, lr=learning_rate)
        self._decay = decay
        self._averages = [] if decay is None else [t.detach().clone() for t in self._learnt()]

    def step(self, domain: str, images: Tensor, classes: Tensor, annotated: Tensor) -> float:
        """One step of the shared filters and of one domain's batch norm.

        Parameters
        ----------
        images : N C H W
        classes : N H W int64
        annotated : N K bool

        Returns
        -------
        the loss before the step
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        images, classes, annotated = (t.to(self._device) for t in (images, classes, annotated))
        images = images.to(memory_format=torch.channels_last)
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            logits = self._network(images, self._learners[domain])
        loss = self._loss(logits, classes, annotated)
        # Without a gradient Adam leaves the other domains' tensors alone.
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._average()
        self.done += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def _loss(self, logits: Tensor, classes: Tensor, annotated: Tensor) -> Tensor:
        return dice_cross_entropy(logits, classes, annotated)

    def _learnt(self) -> list[Tensor]:
        """What a step changes, running statistics included."""
        states = self._learners.values()
        tensors = [t for state in states for t in (state.gamma, state.beta, state.mean, state.var)]
        return [*self._network.parameters(), *tensors]

    @torch.no_grad()
    def _average(self) -> None:
        if self._decay is not None:
            decay = min(self._decay, (1 + self.done) / (10 + self.done))  # short while it is young
            torch._foreach_lerp_(self._averages, self._learnt(), 1 - decay)

    @torch.no_grad()
    def _take(self, tensors: Sequence[Tensor]) -> None:
        for mine, other in zip(self._learnt(), tensors, strict=True):
            mine.copy_(other)

    def _rate(self) -> float:
        rising = min(1.0, (self.done + 1) / self._warm_up) if self._warm_up else 1.0
        return rising * self._learning_rate * (1 + math.cos(math.pi * self.done / self.steps)) / 2

    def checkpoint(self) -> dict[str, Any]:
        """Everything a later `restore` needs; the caller's own generators are not in it."""
        return {
            "done": self.done,
            "losses": list(self.losses),
            "network": copy.deepcopy(self._network.state_dict()),
            "states": {name: learner.tensors() for name, learner in self._learners.items()},
            "optimiser": copy.deepcopy(self._optimiser.state_dict()),
        }

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on where `checkpoint` was taken, by a trainer made with the same arguments."""
        self.done, self.losses = checkpoint["done"], list(checkpoint["losses"])
        self._network.load_state_dict(checkpoint["network"])
        for name, learner in self._learners.items():
            learner.restore(checkpoint["states"][name])
        self._optimiser.load_state_dict(checkpoint["optimiser"])
        if self._averages:  # not stored: a short average has forgotten its start soon
            self._averages = [tensor.detach().clone() for tensor in self._learnt()]

    def result(self, *, averaged: bool = False) -> Trained:
        """A frozen copy of the present step, or of the running average, on the CPU."""
        now = [tensor.detach().clone() for tensor in self._learnt()]
        if averaged:
            self._take(self._averages)
            result = self.result()
            self._take(now)
            return result
        network = copy.deepcopy(self._network).to("cpu", memory_format=torch.contiguous_format)
        backbone = freeze(network)
        states = {
            name: State(learner.snapshot().rows, backbone.sha256)
            for name, learner in self._learners.items()
        }
        return Trained(backbone, states, tuple(self.losses))


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
    on_progress: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Trained:
    """Train the shared filters and one state per domain, the domains taking turns.

    Parameters
    ----------
    sources : batches of every domain, by its name
    on_progress : told every step and its loss

    See `Trainer` for the others.
    """
    trainer = Trainer(
        spec,
        list(sources),
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        precision=precision,
    )
    names = list(sources)
    while trainer.done < steps:
        name = names[trainer.done % len(names)]
        loss = trainer.step(name, *sources[name](batch_size))
        on_progress(trainer.done, loss)
    return trainer.result()
