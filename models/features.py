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
_REACH = 3  # pixels around what counts: two that are seen, and one that is not


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
        part = _shown(inside)
        images = torch.from_numpy(np.ascontiguousarray(slices[part]))[:, None]
        counted = torch.from_numpy(np.ascontiguousarray(inside[part]).ravel()).nonzero()[:, 0]
        seen = F.conv2d(images, self.first, padding=1)
        var, mean = _statistics(seen, counted)
        scale = self.gamma / torch.sqrt(var + _EPS)
        shift = self.beta - mean * scale
        active = torch.addcmul(shift[:, None, None], seen, scale[:, None, None]).relu_()
        second_var, second_mean = _statistics(F.conv2d(active, self.second, padding=1), counted)
        described = torch.cat([_log_std(var), second_mean, _log_std(second_var)])
        return np.asarray(described.double().numpy())


def _shown(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """As much of the slices as what counts can see through two convolutions."""
    ends = []
    for axis, size in ((1, inside.shape[1]), (2, inside.shape[2])):
        busy = np.flatnonzero(inside.any(tuple(a for a in range(3) if a != axis)))
        ends.append(slice(max(busy[0] - _REACH, 0), min(busy[-1] + 1 + _REACH, size)))
    return slice(None), ends[0], ends[1]


def _statistics(features: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of every channel (C,) of N C H W over the pixels that count."""
    pixels = features.transpose(0, 1).flatten(1)[:, counted]
    var, mean = torch.var_mean(pixels, 1, correction=0)
    return var, mean


def _log_std(var: Tensor) -> Tensor:
    return torch.log(var.sqrt() + _LEAST_STD)
