"""The network of one domain as a function of its filters, batch norm folded in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.network import UNet

Arrays = list[NDArray[np.float32]]


class FoldedNetwork(nn.Module):
    """`models.network.UNet` with every convolution's weights and bias as inputs.

    What the deeper level and the skip connection bring is not joined first:
    each is convolved with its share of the filters, and the results are added
    in place. It is the same sum without the copies.

    Parameters
    ----------
    levels : of the network
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self._levels = levels

    def forward(self, slices: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
        """N 1 H W, and every convolution's O I k k and O in order, to logits N K H W."""
        filters = list(zip(weights, biases, strict=True))
        *body, head = filters
        layers = iter(body)
        features, skips = slices, []
        for level in range(self._levels):
            if level:
                skips.append(features)
                features = F.max_pool2d(features, 2)
            features = _convolve(_convolve(features, layers), layers)
        while skips:
            deeper = F.interpolate(features, scale_factor=2.0, mode="bilinear")
            features = _convolve(_join(deeper, skips.pop(), layers), layers)
        return F.conv2d(features, *head)


def _convolve(features: Tensor, layers: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    return F.relu(F.conv2d(features, *next(layers), padding=1))


def _join(deeper: Tensor, skip: Tensor, layers: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    weight, bias = next(layers)
    ours = deeper.shape[1]
    beside = F.conv2d(skip, weight[:, ours:], bias, padding=1)
    return F.relu(beside + F.conv2d(deeper, weight[:, :ours], padding=1))


def filters_of(network: UNet) -> Arrays:
    """Copies of the shared filters, O I 3 3, in the order of the layers."""
    return [
        network.convolutions[layer.name].detach().float().numpy().copy()
        for layer in network.spec.layers
    ]


class Folding:
    """Folds one domain after another into the same memory.

    In numpy, on one thread: torch's others would go on spinning beside those
    of a library that runs next. Fresh memory for eight megabytes would cost
    as much as the multiplications.
    """

    def __init__(self) -> None:
        self._weights: Arrays = []
        self._held: tuple[Arrays, NDArray[np.float32]] | None = None

    def fold(self, filters: Arrays, table: Tensor, head: Tensor) -> tuple[Arrays, Arrays]:
        """Weights and biases of every convolution and of the head, for `FoldedNetwork`.

        Parameters
        ----------
        filters : from `filters_of`; all of the same shapes, call after call
        table : 2 C float32, scale and shift
        head : K F+1 float32

        Returns
        -------
        The next call may write over it.
        """
        scale, shift = table.numpy()
        last = head.numpy()
        ends = np.cumsum([len(weight) for weight in filters])[:-1]
        if not self._holds(filters, scale):
            self._weights = self._weights or [np.empty_like(weight) for weight in filters]
            parts = zip(self._weights, filters, np.split(scale, ends), strict=True)
            for into, weight, factors in parts:
                np.multiply(weight, factors[:, None, None, None], out=into)
            self._held = (filters, scale.copy())
        closing = np.ascontiguousarray(last[:, :-1])[:, :, None, None]
        biases = [*np.split(shift, ends), np.ascontiguousarray(last[:, -1])]
        return [*self._weights, closing], biases

    def _holds(self, filters: Arrays, scale: NDArray[np.float32]) -> bool:
        """Whether these filters were folded last, as it is for all batches of one scan."""
        if self._held is None or self._held[0] is not filters:
            return False
        return np.array_equal(self._held[1], scale)
