"""The network of one domain as a function of its filters, batch norm folded in: for OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.network import UNet
from models.spec import BackboneSpec

GRAPH = 2
"""Grows with every change of the graph below that changes the last bits of a score."""

Arrays = list[NDArray[np.float32]]
Node = Any  # openvino.Node; the library is an extra


def folded_graph(spec: BackboneSpec, batch_slices: int) -> Any:
    """`models.network.UNet` with every convolution's weights and bias as inputs.

    What the deeper level and the skip connection bring is not joined first:
    each is convolved with its share of the filters, and the results are added
    in place. It is the same sum without the copies.

    Returns
    -------
    openvino.Model
        Inputs: slices N 1 H W; then, for every layer and the head, weights
        O I k k; then, for each, biases 1 O 1 1. Output: logits N K H W.
    """
    import openvino
    from openvino import opset14 as ops

    classes, features = spec.head_shape
    shapes = [(layer.channels, layer.inputs, 3, 3) for layer in spec.layers]
    shapes.append((classes, features - 1, 1, 1))
    slices = ops.parameter([batch_slices, 1, *spec.slice_shape])
    weights = [ops.parameter(shape) for shape in shapes]
    biases = [ops.parameter([1, shape[0], 1, 1]) for shape in shapes]
    filters = iter(zip(weights, biases, strict=True))
    flowing, skips = slices, []
    for level in range(len(spec.down)):
        if level:
            skips.append(flowing)
            flowing = ops.max_pool(flowing, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        flowing = _layer(_layer(flowing, filters), filters)
    for channels in (spec.down[-1], *spec.up[:-1]):
        deeper = ops.interpolate(
            flowing,
            np.array([2.0, 2.0], np.float32),
            "linear_onnx",
            "scales",
            coordinate_transformation_mode="pytorch_half_pixel",
            axes=[2, 3],
        )
        flowing = _layer(_join(deeper, channels, skips.pop(), filters), filters)
    weight, bias = next(filters)
    logits = ops.add(_convolution(flowing, weight, 0), bias)
    return openvino.Model([logits], [slices, *weights, *biases], spec.name)


def _layer(flowing: Node, filters: Iterator[tuple[Node, Node]]) -> Node:
    from openvino import opset14 as ops

    weight, bias = next(filters)
    return ops.relu(ops.add(_convolution(flowing, weight, 1), bias))


def _join(deeper: Node, channels: int, skip: Node, filters: Iterator[tuple[Node, Node]]) -> Node:
    """The layer that sees a deeper level's channels, and beside them a skip connection's."""
    from openvino import opset14 as ops

    weight, bias = next(filters)
    ours, others = ops.variadic_split(weight, 1, [channels, -1]).outputs()
    beside = ops.add(_convolution(skip, others, 1), bias)
    return ops.relu(ops.add(beside, _convolution(deeper, ours, 1)))


def _convolution(flowing: Node, weight: Node, padding: int) -> Node:
    from openvino import opset14 as ops

    pads = [padding, padding]
    return ops.convolution(flowing, weight, [1, 1], pads, pads, [1, 1])


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
        """Weights and biases of every convolution and of the head, for `folded_graph`.

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
