"""`models.network.UNet` as graphs for OpenVINO: any domains a batch, or one domain's own filters.

What the deeper level and the skip connection bring is not joined first: each
is convolved with its share of the filters, and the results are added in place.
It is the same sum without the copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from models.folded import filters_of
from models.network import UNet
from models.spec import BackboneSpec

GRAPH = 3
"""Grows with every change of a graph below that changes the last bits of a score."""

Node = Any  # openvino.Node; the library is an extra
Layer = tuple[Node, Callable[[Node], Node]]
"""Weights O I 3 3, and what follows their convolution, up to the ReLU."""


def mixing_graph(network: UNet, batch_slices: int) -> Any:
    """The shared filters as constants, what is private to each slice's domain as inputs.

    Scale, shift and ReLU are one pass over the features, which a shift alone
    would take as well.

    Returns
    -------
    openvino.Model
        Inputs: slices N 1 H W; scale and shift N 2 C; heads N K F+1. Outputs:
        for every slice its logits 1 K H W.
    """
    import openvino
    from openvino import opset14 as ops

    spec = network.spec
    classes, features = spec.head_shape
    slices = ops.parameter([batch_slices, 1, *spec.slice_shape])
    table = ops.parameter([batch_slices, 2, spec.channels])
    heads = ops.parameter([batch_slices, classes, features])
    widths = [layer.channels for layer in spec.layers]
    rows = [batch_slices, spec.channels, 1, 1]
    scales, shifts = (
        ops.variadic_split(ops.reshape(row, rows, False), 1, widths).outputs()
        for row in ops.split(table, 1, 2).outputs()
    )

    def scaled(scale: Node, shift: Node) -> Callable[[Node], Node]:
        return lambda found: ops.add(ops.multiply(found, scale), shift)

    weights = (ops.constant(one) for one in filters_of(network))
    body = _body(spec, slices, zip(weights, map(scaled, scales, shifts), strict=True))
    weight, bias = ops.variadic_split(heads, 2, [features - 1, 1]).outputs()
    parts = (_split(one, batch_slices) for one in (body, weight, bias))
    logits = [
        ops.add(
            _convolution(one, ops.reshape(w, [classes, features - 1, 1, 1], False), 0),
            ops.reshape(b, [1, classes, 1, 1], False),
        )
        for one, w, b in zip(*parts, strict=True)
    ]
    return openvino.Model(logits, [slices, table, heads], spec.name)


def single_graph(spec: BackboneSpec, batch_slices: int) -> Any:
    """Every convolution's weights and bias as inputs, batch norm folded into them.

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

    def shifted(bias: Node) -> Callable[[Node], Node]:
        return lambda found: ops.add(found, bias)

    *layers, (weight, bias) = zip(weights, biases, strict=True)
    body = _body(spec, slices, ((one, shifted(other)) for one, other in layers))
    logits = ops.add(_convolution(body, weight, 0), bias)
    return openvino.Model([logits], [slices, *weights, *biases], spec.name)


def _body(spec: BackboneSpec, slices: Node, layers: Iterable[Layer]) -> Node:
    """All but the head: features N F H W."""
    from openvino import opset14 as ops

    at = iter(layers)

    def layer(flowing: Node, skip: Node = None, channels: int = -1) -> Node:
        weight, finished = next(at)
        if skip is None:
            return ops.relu(finished(_convolution(flowing, weight, 1)))
        ours, others = ops.variadic_split(weight, 1, [channels, -1]).outputs()
        both = ops.add(_convolution(skip, others, 1), _convolution(flowing, ours, 1))
        return ops.relu(finished(both))

    flowing, skips = slices, []
    for level in range(len(spec.down)):
        if level:
            skips.append(flowing)
            flowing = ops.max_pool(flowing, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        flowing = layer(layer(flowing))
    for channels in (spec.down[-1], *spec.up[:-1]):
        deeper = ops.interpolate(
            flowing,
            np.array([2.0, 2.0], np.float32),
            "linear_onnx",
            "scales",
            coordinate_transformation_mode="pytorch_half_pixel",
            axes=[2, 3],
        )
        flowing = layer(layer(deeper, skips.pop(), channels))
    return flowing


def _convolution(flowing: Node, weight: Node, padding: int) -> Node:
    from openvino import opset14 as ops

    pads = [padding, padding]
    return ops.convolution(flowing, weight, [1, 1], pads, pads, [1, 1])


def _split(node: Node, batch_slices: int) -> list[Node]:
    """One node for each sample of a batch."""
    from openvino import opset14 as ops

    found: list[Node] = ops.split(node, 0, batch_slices).outputs()
    return found
