"""What the first two convolutions of a backbone see in a scan, whoever's state it has.

A batch norm that had seen this scan alone would have these means and standard deviations:
they tell scanners and contrasts apart, and nothing in them depends on a domain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_LEAST_STD = 1e-4  # of a channel that sees nothing; its logarithm must exist
_EPS = 1e-5


@dataclass(frozen=True)
class FeatureExtractor:
    """Two convolutions with one normalisation between them, fixed for ever.

    Attributes
    ----------
    first, second : filters C 1 3 3 and D C 3 3, float32
    gamma, beta : (C,), of the normalisation between them
    """

    first: Tensor
    second: Tensor
    gamma: Tensor
    beta: Tensor

    @property
    def count(self) -> int:
        """Numbers that a scan is described by."""
        return len(self.first) + 2 * len(self.second)

    @torch.inference_mode()
    def __call__(
        self, slices: NDArray[np.float32], inside: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """The scan's own batch-norm statistics.

        Parameters
        ----------
        slices : N H W, of mean 1 inside
        inside : N H W, what counts

        Returns
        -------
        (F,), the logarithms of the first layer's standard deviations, the second
        layer's means, and the logarithms of its standard deviations
        """
        images = torch.from_numpy(np.ascontiguousarray(slices))[:, None]
        weight = torch.from_numpy(inside.astype(np.float32))[:, None]
        weight /= weight.sum()
        seen = F.conv2d(images, self.first, padding=1)
        mean, var = _statistics(seen, weight)
        scale = self.gamma / torch.sqrt(var + _EPS)
        active = torch.relu(seen * scale[:, None, None] + (self.beta - mean * scale)[:, None, None])
        second_mean, second_var = _statistics(F.conv2d(active, self.second, padding=1), weight)
        described = torch.cat([_log_std(var), second_mean, _log_std(second_var)])
        return np.asarray(described.double().numpy())


def _statistics(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel (C,) of N C H W, by weights N 1 H W that add up to 1."""
    mean = (features * weight).sum((0, 2, 3))
    return mean, ((features - mean[:, None, None]).square() * weight).sum((0, 2, 3))


def _log_std(var: Tensor) -> Tensor:
    return torch.log(var.sqrt() + _LEAST_STD)
