"""Normalisation that learns: for training, tuning and recalibration.

Each of these works on tensors of its own. A stored state is read, never
written.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.spec import BackboneSpec, Layer
from models.state import State


class TrainableState:
    """A state while it is being learnt: batch statistics in, running ones out.

    Parameters
    ----------
    state : copied as the start
    spec : of the backbone; gives eps and momentum
    device : where it is trained
    """

    def __init__(self, state: State, spec: BackboneSpec, device: torch.device) -> None:
        gamma, beta, mean, var = state.rows.to(device).clone()
        self.gamma = gamma.clone().requires_grad_()
        self.beta = beta.clone().requires_grad_()
        self.mean, self.var = mean.clone(), var.clone()
        self._spec = spec
        self._backbone = state.backbone

    @property
    def parameters(self) -> list[Tensor]:
        """What an optimiser may change."""
        return [self.gamma, self.beta]

    def __call__(self, layer: Layer, features: Tensor) -> Tensor:
        at = slice(layer.start, layer.start + layer.channels)
        normal = F.batch_norm(
            features,
            self.mean[at],
            self.var[at],
            self.gamma[at],
            self.beta[at],
            training=True,
            momentum=self._spec.momentum,
            eps=self._spec.eps,
        )
        return F.relu(normal)

    def snapshot(self) -> State:
        """The present values as an immutable state."""
        rows = [t.detach().float().cpu() for t in (self.gamma, self.beta, self.mean, self.var)]
        return State(torch.stack(rows), self._backbone)


class Statistics:
    """Exact mean and variance of every channel over many batches.

    Features are normalised by a given state while they are measured, so that
    each layer sees what it will see in service.

    Parameters
    ----------
    state : whose gamma and beta stay
    spec : of the backbone
    device : where the batches are
    """

    def __init__(self, state: State, spec: BackboneSpec, device: torch.device) -> None:
        self._state = state
        self._rows = state.rows.to(device)
        self._spec = spec
        self._count = torch.zeros(spec.channels, dtype=torch.float64, device=device)
        self._mean = torch.zeros_like(self._count)
        self._square = torch.zeros_like(self._count)

    def __call__(self, layer: Layer, features: Tensor) -> Tensor:
        at = slice(layer.start, layer.start + layer.channels)
        self._merge(at, features)
        gamma, beta, mean, var = self._rows[:, at]
        normal = F.batch_norm(features, mean, var, gamma, beta, False, 0.0, self._spec.eps)
        return F.relu(normal)

    def _merge(self, at: slice, features: Tensor) -> None:
        """Pool one batch; Chan, Golub and LeVeque 1983, in float64."""
        var, mean = torch.var_mean(features.float(), (0, 2, 3), correction=0)
        new = features.numel() // features.shape[1]
        old = self._count[at]
        total = old + new
        delta = mean.double() - self._mean[at]
        self._square[at] += var.double() * new + delta**2 * old * new / total
        self._mean[at] += delta * new / total
        self._count[at] = total

    def state(self) -> State:
        """The state with the measured statistics in place of its own."""
        var = self._square / self._count
        rows = [self._rows[0], self._rows[1], self._mean.float(), var.float()]
        return State(torch.stack([r.cpu() for r in rows]), self._state.backbone)
