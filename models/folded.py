"""A domain's batch norm folded into the filters in front of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.network import UNet

Arrays = list[NDArray[np.float32]]


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
        """Weights and biases of every convolution and of the head, for
        `models.graphs.single_graph`.

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
            self._held = None  # until all of it is written
            parts = zip(self._weights, filters, np.split(scale, ends), strict=True)
            for into, weight, factors in parts:
                np.multiply(weight, factors[:, None, None, None], out=into)
            self._held = (filters, scale.copy())
        closing = np.ascontiguousarray(last[:, :-1])[:, :, None, None]
        biases = [*np.split(shift, ends), np.ascontiguousarray(last[:, -1])]
        return [*self._weights, closing], [bias[None, :, None, None] for bias in biases]

    def _holds(self, filters: Arrays, scale: NDArray[np.float32]) -> bool:
        """Whether these filters were folded last, as it is for all batches of one scan."""
        if self._held is None or self._held[0] is not filters:
            return False
        return np.array_equal(self._held[1], scale)
