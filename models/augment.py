"""Random changes of slices, drawn from one generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def augment(images: Tensor, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror every slice or not, and vary its contrast, brightness and noise a little.

    Gamma 0.9 to 1.1, gain 0.95 to 1.05, noise of at most 0.02. A few scans of
    one scanner are alike in pose, and turning or scaling a slice blurs it:
    that costs more than it teaches.

    Parameters
    ----------
    images : N 1 H W, intensities by percentile; H runs from left to right
    classes : N H W int64; the classes must not know left from right
    random : on the CPU

    Returns
    -------
    images : N 1 H W
    classes : N H W int64
    """
    mirrored = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(2), images)
    classes = torch.where(mirrored.view(-1, 1, 1), classes.flip(1), classes)
    return _contrast(images, random), classes


def random_crops(
    images: Tensor, classes: Tensor, size: tuple[int, int], random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A part of every slice, anywhere in it; all of it where it is no larger.

    Parameters
    ----------
    images : N 1 H W
    classes : N H W int64
    size : pixels (H, W)
    random : on the CPU

    Returns
    -------
    images : N 1 H' W'
    classes : N H' W' int64
    """
    shape = classes.shape[1:]
    height, width = (min(side, whole) for side, whole in zip(size, shape, strict=True))
    tops = torch.randint(shape[0] - height + 1, (len(classes),), generator=random).tolist()
    lefts = torch.randint(shape[1] - width + 1, (len(classes),), generator=random).tolist()
    boxes = [
        (slice(top, top + height), slice(left, left + width))
        for top, left in zip(tops, lefts, strict=True)
    ]
    return (
        torch.stack([image[:, *box] for image, box in zip(images, boxes, strict=True)]),
        torch.stack([labels[*box] for labels, box in zip(classes, boxes, strict=True)]),
    )


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    drawn = torch.rand(count, generator=random) * (high - low) + low
    return drawn.view(count, 1, 1, 1)


def _contrast(images: Tensor, random: torch.Generator) -> Tensor:
    count = len(images)
    gamma = torch.exp(_uniform(count, math.log(0.9), math.log(1.1), random))
    gain = _uniform(count, 0.95, 1.05, random)
    sigma = _uniform(count, 0.0, 0.02, random)
    noise = torch.randn(images.shape, generator=random)
    inside = (images > 0).to(images.dtype)
    return images.clamp_min(0) ** gamma * gain + noise * sigma * inside
