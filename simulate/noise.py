"""Rician noise: what the magnitude of two noisy channels makes of a signal.

Gudbjartsson & Patz, Magn Reson Med 34:910-914, 1995.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulate.tissue import Array

Noise = Callable[[Array, float, np.random.Generator], None]
"""(signal, which is changed; sigma of a channel; draws)"""

_PIECE = 1 << 16  # voxels worked on at a time


def channel_noise(signal: Array, sigma: float, rng: np.random.Generator) -> None:
    """Both channels drawn one after the other; changes `signal`."""
    size = np.float32(sigma)
    signal += size * rng.standard_normal(signal.shape, dtype=np.float32)
    np.hypot(signal, size * rng.standard_normal(signal.shape, dtype=np.float32), out=signal)


def polar_noise(signal: Array, sigma: float, rng: np.random.Generator) -> None:
    """Both channels drawn at once, as a distance and an angle; changes `signal`.

    Several times faster. 32 random bits a voxel: 24 give the distance, as far
    as 5.8 sigma, 8 the angle, whose cosine has the moments of a continuous one.

    Parameters
    ----------
    signal : (X, Y, Z), C-contiguous

    Notes
    -----
    Box & Muller, Ann Math Stat 29:610-611, 1958.
    """
    flat = signal.reshape(-1)
    cosines = np.cos((np.arange(256) + 0.5) * (np.pi / 128)).astype(np.float32)
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        bits = rng.bit_generator.random_raw(_PIECE // 2).view(np.uint32)[: len(piece)]
        uniform = ((bits >> 8).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)
        power = np.log(uniform, out=uniform)
        power *= np.float32(-2 * sigma**2)
        along = np.sqrt(power) * cosines.take(bits.astype(np.uint8), mode="clip")
        along *= 2
        along += piece
        np.sqrt(piece * along + power, out=piece)
