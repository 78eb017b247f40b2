"""Random changes of slices, drawn from one generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vary pose, contrast, brightness and noise of every slice on its own.

    Rotation by at most 10 degrees, scale 0.9 to 1.1, shift by at most 8
    pixels, mirroring of the first axis, gamma 0.7 to 1.4, gain 0.9 to 1.1,
    noise of at most 0.04.

    Parameters
    ----------
    images : N 1 H W, intensities by percentile
    classes : N H W int64; the classes must not know left from right
    random : on the CPU

    Returns
    -------
    images : N 1 H W
    classes : N H W int64
    """
    grid = _pose(images, random)
    images = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    labels = classes[:, None].to(images.dtype)
    labels = F.grid_sample(labels, grid, mode="nearest", align_corners=False)
    return _contrast(images, random), labels[:, 0].round().long()


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    return torch.rand(count, generator=random) * (high - low) + low


def _pose(images: Tensor, random: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    angle = _uniform(count, -math.pi / 18, math.pi / 18, random)
    scale = _uniform(count, 0.9, 1.1, random)
    mirror = (torch.rand(count, generator=random) < 0.5).float() * 2 - 1
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # grid_sample's x runs along W (posterior-anterior), y along H (left-right)
    down = _uniform(count, -16, 16, random) / height
    along = _uniform(count, -16, 16, random) / width
    rows = [
        torch.stack([cos, -sin * height / width, along], 1),
        torch.stack([mirror * sin * width / height, mirror * cos, down], 1),
    ]
    return F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)


def _contrast(images: Tensor, random: torch.Generator) -> Tensor:
    count = len(images)
    shape = (count, 1, 1, 1)
    gamma = torch.exp(_uniform(count, math.log(0.7), math.log(1.4), random)).view(shape)
    gain = _uniform(count, 0.9, 1.1, random).view(shape)
    sigma = _uniform(count, 0.0, 0.04, random).view(shape)
    noise = torch.randn(images.shape, generator=random)
    inside = (images > 0).to(images.dtype)
    bright = images.clamp_min(0) ** gamma.to(images) * gain.to(images)
    return bright + noise.to(images) * sigma.to(images) * inside
