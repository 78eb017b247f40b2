"""The same seed gives the same bits, on a GPU too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Compute gradients on a GPU in the same order every time; other devices do anyway.

    Without it the gradient of an upsampling and of some convolutions is summed
    in whatever order the GPU's threads finish. Where PyTorch knows no ordered
    way (it warns of 2 × 2 pooling, whose windows do not overlap) it goes on.
    """
    if device.type != "cuda":
        yield
        return
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
