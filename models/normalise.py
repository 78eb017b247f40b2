"""Normalisation that learns, on tensors of its own: a stored state is never written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.adapters import by_layer
from models.network import Adapters
from models.spec import BackboneSpec, Layer
from models.state import State

_ADAPTER_UNIT = 0.3
"""Adapters are learnt in units of this: one learning rate then suits them and the rest."""


class TrainableState:
    """A state while it is being learnt: batch statistics in, running ones out.

    Parameters
    ----------
    state : copied as the start
    spec : of the backbone; gives eps and momentum
    device : where it is trained
    head : K F+1, learnt along unless the state brings one; None: no head is
        learnt where the state brings none
    adapters : learn 1×1 convolutions of its own, from zero unless the state
        brings some

    Attributes
    ----------
    head : 1 K F+1, or None
    """

    def __init__(
        self,
        state: State,
        spec: BackboneSpec,
        device: torch.device,
        head: Tensor | None = None,
        *,
        adapters: bool = False,
    ) -> None:
        gamma, beta, mean, var = state.rows.to(device).clone()
        self.gamma = gamma.clone().requires_grad_()
        self.beta = beta.clone().requires_grad_()
        self.mean, self.var = mean.clone(), var.clone()
        head = head if state.head is None else state.head
        self.head = None if head is None else head[None].to(device).clone().requires_grad_()
        first = state.adapters
        if first is None and adapters:
            first = torch.zeros(spec.adapter_size)
        self._adapters = None
        if first is not None:
            self._adapters = (first.float() / _ADAPTER_UNIT).to(device).requires_grad_()
        self._spec = spec
        self._backbone = state.backbone

    @property
    def parameters(self) -> list[Tensor]:
        """What an optimiser may change."""
        tensors = (self.gamma, self.beta, self.head, self._adapters)
        return [tensor for tensor in tensors if tensor is not None]

    @property
    def adapters(self) -> Adapters | None:
        """By layer, O I 1 1; gradients flow through."""
        if self._adapters is None:
            return None
        return by_layer(self._adapters * _ADAPTER_UNIT, self._spec)

    def __call__(self, layer: Layer, features: Tensor) -> Tensor:
        channels = slice(layer.start, layer.start + layer.channels)
        normal = F.batch_norm(
            features,
            self.mean[channels],
            self.var[channels],
            self.gamma[channels],
            self.beta[channels],
            training=True,
            momentum=self._spec.momentum,
            eps=self._spec.eps,
        )
        return F.relu(normal, inplace=True)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the present values, in full precision."""
        names = ("gamma", "beta", "mean", "var")
        return {name: getattr(self, name).detach().clone() for name in names}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of `tensors` over, in place: the optimiser keeps its grip."""
        for name, value in tensors.items():
            getattr(self, name).copy_(value)

    def snapshot(self) -> State:
        """The present values as an immutable state."""
        rows = [t.detach().float().cpu() for t in (self.gamma, self.beta, self.mean, self.var)]
        head = None if self.head is None else self.head[0].detach().float().cpu().clone()
        adapters = None
        if self._adapters is not None:
            adapters = (self._adapters.detach() * _ADAPTER_UNIT).to("cpu", torch.bfloat16)
        return State(torch.stack(rows), self._backbone, head, adapters)
