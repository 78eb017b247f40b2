"""`models.network.UNet` as a graph for OpenVINO: any domains in a batch, or one domain alone.

Two identities make it cheaper than the network as it is written. What the
level below and the skip connection bring is not joined first: each is
convolved with its share of the filters, and the results are added. And a 3×3
convolution of a bilinearly enlarged map is four 3×3 convolutions of the small
map, one for each of the four positions of a pixel in its pair of rows and
columns (Shi et al., CVPR 2016, sub-pixel convolution): nothing is enlarged.

The second one holds up to the border: beyond it the small map counts as 0,
where `UNet` repeats the outermost pixels of the small map, and takes those of
the enlarged one as 0. Scores differ there by more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.network import UNet
from models.quantization import INPUT_RANGE, Ranges, quantize_filters
from models.spec import BackboneSpec, Layer

GRAPH = 4
"""Grows with every change of a graph below that changes the last bits of a score."""

Node = Any  # openvino.Node; the library is an extra
Array = NDArray[np.float32]


@dataclass(frozen=True)
class OwnTensors:
    """What one domain puts into the network.

    Attributes
    ----------
    table : 2 C, scale and shift
    head : K F+1, the last column is the bias
    """

    table: Array
    head: Array


def mixing_graph(
    network: UNet, shape: tuple[int, int, int, int], ranges: Ranges | None = None
) -> Any:
    """The shared filters as constants, what is private to each slice's domain as inputs.

    Parameters
    ----------
    shape : N 1 H W
    ranges : of the activations, for int8; None: in floating point

    Returns
    -------
    openvino.Model
        Inputs: slices N 1 H W; scale and shift N 2 C; heads N K F+1. Outputs:
        for every slice its logits 1 K H W.
    """
    import openvino
    from openvino import opset14 as ops

    spec, count = network.spec, shape[0]
    classes, features = spec.head_shape
    slices = ops.parameter(list(shape))
    table = ops.parameter([count, 2, spec.channels])
    heads = ops.parameter([count, classes, features])
    widths = [layer.channels for layer in spec.layers]
    rows = [count, spec.channels, 1, 1]
    scales, shifts = (
        ops.variadic_split(ops.reshape(row, rows, False), 1, widths).outputs()
        for row in ops.split(table, 1, 2).outputs()
    )

    def scaled(index: int, convolved: Node) -> Node:
        return ops.add(ops.multiply(convolved, scales[index]), shifts[index])

    body = _Body(spec, filters_of(network), scaled, ranges).features(slices)
    weight, bias = ops.variadic_split(heads, 2, [features - 1, 1]).outputs()
    parts = (ops.split(node, 0, count).outputs() for node in (body, weight, bias))
    logits = [
        ops.add(
            _convolution(node, ops.reshape(w, [classes, features - 1, 1, 1], False), 0),
            ops.reshape(b, [1, classes, 1, 1], False),
        )
        for node, w, b in zip(*parts, strict=True)
    ]
    return openvino.Model(logits, [slices, table, heads], spec.name)


def dedicated_graph(
    network: UNet,
    own: OwnTensors,
    shape: tuple[int, int, int],
    ranges: Ranges | None = None,
) -> Any:
    """The network of one domain, batch norm folded into the filters, all of it constant.

    Parameters
    ----------
    shape : N H W; -1: any
    ranges : of the activations, for int8; None: in floating point

    Returns
    -------
    openvino.Model
        Input: slices N 1 H W. Output: logits N K H W.
    """
    import openvino
    from openvino import opset14 as ops

    spec = network.spec
    count, *size = shape
    slices = ops.parameter(openvino.PartialShape([count, spec.layers[0].inputs, *size]))
    scale, shift = (np.split(row, _ends(spec.layers)) for row in own.table)
    filters = [
        weight * factor[:, None, None, None]
        for weight, factor in zip(filters_of(network), scale, strict=True)
    ]

    def shifted(index: int, convolved: Node) -> Node:
        return ops.add(convolved, ops.constant(shift[index][None, :, None, None].copy()))

    body = _Body(spec, filters, shifted, ranges).features(slices)
    weight = ops.constant(own.head[:, :-1, None, None].copy())
    bias = ops.constant(own.head[None, :, -1, None, None].copy())
    logits = ops.add(_convolution(body, weight, 0), bias)
    return openvino.Model([logits], [slices], spec.name)


def filters_of(network: UNet) -> list[Array]:
    """The filters, O I 3 3, in the order of the layers."""
    return [
        network.convolutions[layer.name].detach().float().numpy() for layer in network.spec.layers
    ]


def enlarging_filters(weights: Array) -> Array:
    """Filters for a small map, instead of `weights` for the map enlarged by two.

    Parameters
    ----------
    weights : O I 3 3

    Returns
    -------
    4 O I 3 3: those of every output channel for the even rows and even
    columns, then even and odd, odd and even, odd and odd
    """
    phases = [
        np.einsum("oiyx,ya,xb->oiab", weights, rows, columns)
        for rows in _ENLARGED
        for columns in _ENLARGED
    ]
    return np.concatenate(phases).astype(np.float32)


def _enlarged(phase: int) -> Array:
    """(3, 3): what each tap of a filter at an even (0) or odd (1) pixel sees of the small map."""
    seen = np.zeros((3, 3), np.float32)
    for tap in range(3):
        pixel, odd = divmod(phase + tap - 1, 2)
        beside = pixel + (1 if odd else -1)
        seen[tap, pixel + 1] += 0.75
        seen[tap, beside + 1] += 0.25
    return seen


_ENLARGED = (_enlarged(0), _enlarged(1))


class _Body:
    """All but the head.

    Parameters
    ----------
    filters : O I 3 3 of every layer
    normalised : (index of a layer, what its convolution gives) -> what ReLU is applied to
    ranges : for int8
    """

    def __init__(
        self,
        spec: BackboneSpec,
        filters: list[Array],
        normalised: Callable[[int, Node], Node],
        ranges: Ranges | None,
    ) -> None:
        self._spec, self._filters, self._normalised = spec, filters, normalised
        self._ranges = ranges

    def features(self, slices: Node) -> Node:
        """N F H W of slices N 1 H W."""
        from openvino import opset14 as ops

        layers = iter(range(len(self._filters)))
        flowing, skips = slices, []
        if self._ranges is not None:
            flowing = _quantized(slices, INPUT_RANGE)
        for level in range(len(self._spec.down)):
            if level:
                skips.append(flowing)
                flowing = ops.max_pool(flowing, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
            flowing = self._plain(next(layers), flowing)
            flowing = self._plain(next(layers), flowing)
        while skips:
            flowing = self._joined(next(layers), flowing, skips.pop())
            flowing = self._plain(next(layers), flowing)
        return flowing

    def _plain(self, index: int, flowing: Node) -> Node:
        return self._finished(index, _convolution(flowing, self._weight(self._filters[index]), 1))

    def _joined(self, index: int, deeper: Node, skip: Node) -> Node:
        """A layer that sees the level below, enlarged by two, and a skip connection."""
        from openvino import opset14 as ops

        filters = self._filters[index]
        place = (index - 2 * len(self._spec.down)) // 2
        channels = (self._spec.down[-1], *self._spec.up)[place]
        below = self._weight(enlarging_filters(filters[:, :channels]))
        beside = self._weight(filters[:, channels:])
        enlarged = ops.depth_to_space(_convolution(deeper, below, 1), "blocks_first", 2)
        return self._finished(index, ops.add(_convolution(skip, beside, 1), enlarged))

    def _weight(self, filters: Array) -> Node:
        from openvino import opset14 as ops

        if self._ranges is None:
            return ops.constant(np.ascontiguousarray(filters))
        whole, scale = quantize_filters(filters)
        return ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scale))

    def _finished(self, index: int, convolved: Node) -> Node:
        from openvino import opset14 as ops

        active = ops.relu(self._normalised(index, convolved))
        return active if self._ranges is None else _quantized(active, self._ranges[index])


def _quantized(flowing: Node, largest: float) -> Node:
    """From 0 to `largest` in 256 levels."""
    from openvino import opset14 as ops

    low, high = np.float32(0), np.float32(largest)
    return ops.fake_quantize(flowing, low, high, low, high, 256)


def _convolution(flowing: Node, weight: Node, padding: int) -> Node:
    from openvino import opset14 as ops

    pads = [padding, padding]
    return ops.convolution(flowing, weight, [1, 1], pads, pads, [1, 1])


def _ends(layers: tuple[Layer, ...]) -> list[int]:
    return [layer.start for layer in layers[1:]]
