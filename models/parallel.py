"""A frozen 3×3 convolution with a 1×1 one beside it that learns.

Both are computed as one, also while they are learnt: a 1×1 kernel is the
middle of a 3×3 one. Only its own gradient is then computed, which is a product
of two matrices; that of all nine taps would cost as much as the forward pass,
for filters that no step may change.

Rebuffi et al., CVPR 2018 (parallel residual adapters).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def beside(weight: Tensor, adapter: Tensor) -> Tensor:
    """One 3×3 convolution for a shared one, O I 3 3, and an adapter, O I 1 1."""
    return weight + F.pad(adapter, (1, 1, 1, 1))


def convolve(features: Tensor, weight: Tensor, adapter: Tensor) -> Tensor:
    """Both convolutions, summed.

    Parameters
    ----------
    features : N I H W
    weight : O I 3 3, frozen: no gradient flows into it
    adapter : O I 1 1

    Returns
    -------
    N O H W, the size kept by a border of zeros
    """
    return _Parallel.apply(features, weight, adapter)  # type: ignore[no-any-return, no-untyped-call]


class _Parallel(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, adapter: Tensor) -> Tensor:
        filters = beside(weight, adapter)
        answer = F.conv2d(features, filters, padding=1)
        # What autocast has made of them, which is not there on the way back.
        ctx.save_for_backward(features.to(answer.dtype), filters.to(answer.dtype))
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        features, filters = ctx.saved_tensors
        (gradient,) = gradients
        to_features = to_adapter = None
        if ctx.needs_input_grad[0]:
            to_features = _to_features(gradient, features, filters)
        if ctx.needs_input_grad[2]:
            to_adapter = (_pixels(gradient).T @ _pixels(features))[:, :, None, None]
        return to_features, None, to_adapter


def _pixels(features: Tensor) -> Tensor:
    """N C H W as a matrix of NHW rows; a view where channels lie last."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _to_features(gradient: Tensor, features: Tensor, filters: Tensor) -> Tensor:
    """What flows back through a 3×3 convolution; nothing flows to its filters."""
    # torch.nn.grad.conv2d_input would write the features once more.
    once, border = [1, 1], [1, 1]
    gradients = torch.ops.aten.convolution_backward(
        gradient,
        features,
        filters,
        None,
        once,
        border,
        once,
        False,
        [0, 0],
        1,
        [True, False, False],
    )
    return gradients[0]  # type: ignore[no-any-return]
