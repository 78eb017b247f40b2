"""int8: filters quantised once per backbone, activations by ranges that hold for all domains.

Behind a batch norm the features of every domain have like ranges: a channel's
values are spread around its beta by about its gamma. The widest such range of
a layer among the states that the backbone was trained with therefore serves
all domains, and no calibration scan is needed at the start. Scale, shift and
head stay in float.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from models.spec import BackboneSpec
from models.state import State

WIDTH = 6.0
"""Standard deviations of a feature that its range holds; what is beyond saturates."""

INPUT_RANGE = 3.0
"""Intensities, in units of the scan's percentile; brighter voxels saturate."""

Ranges = tuple[float, ...]
"""The largest value of every layer's activations, in the order of the layers."""


def activation_ranges(states: Iterable[State], spec: BackboneSpec) -> Ranges:
    """By layer, the largest activation that is told apart from larger ones.

    Parameters
    ----------
    states : those that the backbone was trained with; at least one

    Returns
    -------
    One number above 0 for each of `spec.layers`.
    """
    rows = torch.stack([state.rows for state in states])
    reach = (rows[:, 1] + WIDTH * rows[:, 0].abs()).amax(0)
    ranges = [
        max(float(reach[layer.start : layer.start + layer.channels].max()), 1e-3)
        for layer in spec.layers
    ]
    return tuple(round(value, 4) for value in ranges)


def quantize_filters(
    weights: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Filters O I k k as int8, symmetric, with one scale per output channel, O 1 1 1."""
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    scale = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale


def ranges_name(ranges: Ranges) -> str:
    """Eight characters that name the ranges: with others a score has other bits."""
    text = f"{INPUT_RANGE} {WIDTH} {ranges}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]
