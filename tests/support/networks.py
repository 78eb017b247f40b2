"""A backbone small enough for a test, and slices it can learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.backbone import Backbone, freeze, save_backbone
from models.cases import LabelledSlices
from models.network import UNet
from models.packs import write_pack
from models.spec import BackboneSpec
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
