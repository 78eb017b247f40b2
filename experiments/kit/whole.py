"""What small private states are compared with: all of a network learns, and forgets."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from models.backbone import Backbone, freeze
from models.bank import Private
from models.bench import Bench
from models.network import UNet
from models.normalise import TrainableState
from models.state import State


class WholeLearner:
    """Every weight of a network of its own, and one state.

    Parameters
    ----------
    bench : names device and precision
    start : a network and the state to go on from, both copied; None: from
        random weights that follow from `seed`
    """

    def __init__(self, bench: Bench, start: State | None, *, seed: int = 0) -> None:
        self._bench = bench
        torch.manual_seed(seed)
        network = UNet(bench.spec) if start is None else copy.deepcopy(bench.backbone.network)
        moved = network.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = moved.requires_grad_(True)
        state = start or State.initial(bench.spec, "")
        self._state = TrainableState(state, bench.spec, bench.device)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self._network.parameters(), *self._state.parameters]

    def logits(self, images: Tensor) -> Tensor:
        return self._bench.through(self._network, images, Private(self._state))

    def snapshot(self) -> tuple[Backbone, State]:
        """The present network, frozen, with its state."""
        network = copy.deepcopy(self._network).to("cpu", memory_format=torch.contiguous_format)
        backbone = freeze(network)
        return backbone, State(self._state.snapshot().rows, backbone.sha256)
