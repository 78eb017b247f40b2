"""What a backbone is: its shape and its conventions, carried with its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

SLICE_REACH = 2
"""What releases, and networks trained from nothing, take at 1 mm; see `BackboneSpec`."""


class Layer(NamedTuple):
    """One convolution with the normalisation behind it.

    Attributes
    ----------
    name : position in the network, such as `down_0_1`
    inputs, channels : of the convolution
    start : where the layer's channels begin in a state's rows
    """

    name: str
    inputs: int
    channels: int
    start: int


@dataclass(frozen=True)
class BackboneSpec:
    """Metadata of a backbone; everything the code must not assume.

    Attributes
    ----------
    name : human-readable
    classes : structure names in the order of the output channels
    down, up : channels of the contracting and the expanding blocks
    eps, momentum : of the batch norm (PyTorch's meaning of momentum)
    plane : `axial`, `coronal` or `sagittal`; which slices the network sees
    spacing_mm : isotropic spacing of the network's space
    window : voxels (left-right, posterior-anterior, inferior-superior)
    percentile : per cent; a cut volume is divided by it
    slice_reach : slices on either side that have a say in one, see
        `models.decoder`; 0: every slice by itself, as it must be where the
        classes know left from right
    training : free facts about data, licence and device
    inputs : slices that the network sees at once, odd; the middle one is segmented

    Raises
    ------
    ValueError
        An even number of inputs, a negative reach, or sagittal slices that
        shall reach others: they show one side alone and have no mirror image.
    """

    name: str
    classes: tuple[str, ...]
    down: tuple[int, ...] = (32, 64, 128, 256)
    up: tuple[int, ...] = (128, 64, 32)
    eps: float = 1e-5
    momentum: float = 0.1
    plane: str = "axial"
    spacing_mm: float = 1.0
    window: tuple[int, int, int] = (192, 224, 160)
    percentile: float = 98.0
    slice_reach: int = 0
    training: Mapping[str, Any] | None = None
    inputs: int = 1

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.inputs % 2 == 0:
            raise ValueError(f"of {self.inputs} slices none is the middle one")
        if self.slice_reach < 0:
            raise ValueError(f"slices cannot reach {self.slice_reach} others")
        if self.slice_reach and self.plane == "sagittal":
            raise ValueError("a sagittal slice has no mirror image, and cannot reach others")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every normalised convolution, in the order of the forward pass."""
        layers: list[Layer] = []
        start = 0
        inputs = self.inputs
        blocks = [(f"down_{i}", c, 0) for i, c in enumerate(self.down)]
        skips = self.down[-2::-1]
        blocks += [(f"up_{i}", c, s) for i, (c, s) in enumerate(zip(self.up, skips, strict=True))]
        for name, channels, skip in blocks:
            for position, width in ((1, inputs + skip), (2, channels)):
                layers.append(Layer(f"{name}_{position}", width, channels, start))
                start += channels
            inputs = channels
        return tuple(layers)

    @property
    def channels(self) -> int:
        """Normalised channels in all layers: the width of a state."""
        last = self.layers[-1]
        return last.start + last.channels

    @property
    def head_shape(self) -> tuple[int, int]:
        """(K, F + 1): the last convolution's weights with the bias as last column."""
        return len(self.classes), self.up[-1] + 1

    @property
    def adapter_size(self) -> int:
        """Weights of a 1×1 convolution beside every normalised one."""
        return sum(layer.inputs * layer.channels for layer in self.layers)

    @property
    def slice_axis(self) -> int:
        """The axis of a RAS+ volume that is stacked from slices."""
        return {"sagittal": 0, "coronal": 1, "axial": 2}[self.plane]

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Voxels (H, W) of one slice of the window."""
        first, second = (n for axis, n in enumerate(self.window) if axis != self.slice_axis)
        return first, second

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        for key in ("classes", "down", "up", "window"):
            values[key] = tuple(values[key])
        return cls(**values)
