"""A backbone small enough for a test, and slices it can learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbone import Backbone, freeze, save_backbone
from models.cases import LabelledSlices
from models.network import Adapters, Normalise, UNet, apply_heads
from models.packs import write_pack
from models.parallel import beside
from models.spec import BackboneSpec, Layer
from models.state import State


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks are faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CLASSES = ("background", "thalamus", "hippocampus", "amygdala")


def small_spec() -> BackboneSpec:
    return BackboneSpec(
        name="small", classes=CLASSES, down=(4, 8, 8, 8), up=(8, 8, 4), window=(32, 40, 16)
    )


def small_backbone(seed: int = 0) -> Backbone:
    """Random filters; the head tells classes apart by nothing in particular."""
    torch.manual_seed(seed)
    return freeze(UNet(small_spec()))


def save_tiny_backbone(
    folder: Path, domains: Sequence[str], *, seed: int = 0, **changes: Any
) -> Backbone:
    """A small network without training that sees the world in voxels of 5 mm.

    Lies in the folder as the shipped one does, with a random state per domain.

    Parameters
    ----------
    changes : of its spec
    """
    coarse: dict[str, Any] = {"spacing_mm": 5.0, "window": (48, 56, 40), **changes}
    torch.manual_seed(seed)
    backbone = freeze(UNet(replace(small_spec(), **coarse)))
    save_backbone(backbone, folder)
    (folder / "states").mkdir()
    for number, name in enumerate(domains):
        state = random_state(backbone, seed + number)
        pack = write_pack(state.to_bytes(), {"backbone": backbone.sha256})
        (folder / "states" / f"{name}.safetensors").write_bytes(pack)
    return backbone


def random_state(
    backbone: Backbone, seed: int, *, head: bool = False, adapters: bool = False
) -> State:
    """A state of nothing in particular, at choice with a head and adapters of its own."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.rand(4, backbone.spec.channels, generator=random) + 0.5
    rows[1:3] -= 1
    own = torch.randn(backbone.spec.head_shape, generator=random) if head else None
    beside = 0.2 * torch.randn(backbone.spec.adapter_size, generator=random)
    return State(rows, backbone.sha256, own, beside.bfloat16() if adapters else None)


def discs(seed: int, *, contrast: float = 1.0, count: int = 12) -> LabelledSlices:
    """Slices with a disc of each class, told apart by their brightness."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :40]
    classes = np.zeros((count, 32, 40), np.uint8)
    for index in range(count):
        for number, (row, column) in enumerate(((9, 10), (22, 12), (16, 28)), start=1):
            y, x = row + random.integers(-2, 3), column + random.integers(-2, 3)
            classes[index][(rows - y) ** 2 + (columns - x) ** 2 < 30] = number
    bright = np.array([0.1, 0.4, 0.7, 1.0]) ** contrast
    images = bright[classes] + random.normal(0, 0.02, classes.shape)
    return LabelledSlices(images.astype(np.float32), classes, np.ones(4, bool))


def nothing_beyond_the_border(
    network: UNet,
    slices: Tensor,
    normalise: Normalise,
    heads: Tensor,
    adapters: Adapters | None = None,
) -> Tensor:
    """`UNet.forward` where enlarged maps go on beyond their border as if the small ones were 0."""

    def filters(layer: Layer) -> Tensor:
        weight = network.convolutions[layer.name]
        return weight if adapters is None else beside(weight, adapters[layer.name])

    layers = iter(network.spec.layers)
    features, skips = slices, []
    for level in range(len(network.spec.down)):
        if level:
            skips.append(features)
            features = F.max_pool2d(features, 2)
        for layer in islice(layers, 2):
            features = normalise(layer, F.conv2d(features, filters(layer), padding=1))
    while skips:
        skip, layer = skips.pop(), next(layers)
        wide = F.interpolate(F.pad(features, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear")
        joined = torch.cat([wide[:, :, 1:-1, 1:-1], F.pad(skip, (1, 1, 1, 1))], 1)
        features = normalise(layer, F.conv2d(joined, filters(layer)))
        layer = next(layers)
        features = normalise(layer, F.conv2d(features, filters(layer), padding=1))
    return apply_heads(features, heads)
