"""The domains of a released backbone: families of simulated scanners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from simulate import Scanner, random_scanner

Range = tuple[float, float]

THICK = 0.4  # share of the scans that may have voxels other than the label maps'


@dataclass(frozen=True)
class Family:
    """Scanners that share a domain: a contrast, and ranges of what varies.

    Attributes
    ----------
    contrast : one of `simulate.CONTRASTS`
    noise : sigma of the two channels of the Rician noise
    blur_mm : FWHM of the point spread
    bias : standard deviation of the log of the bias field
    stripped : share of the scans without skull
    share : of all training steps
    """

    contrast: str
    noise: Range
    blur_mm: Range
    bias: Range
    stripped: float
    share: float

    def scanner(self, rng: np.random.Generator) -> Scanner:
        """Draw one scanner of the family."""
        drawn = random_scanner(rng, self.contrast)
        stripped = rng.random() < self.stripped
        thick = rng.random() < THICK
        return replace(
            drawn,
            blend=0.6,
            rim=3.0,
            noise=float(rng.uniform(*self.noise)),
            blur_mm=float(rng.uniform(*self.blur_mm)),
            bias=float(rng.uniform(*self.bias)),
            strip_mm=float(rng.uniform(0, 5)) if stripped else None,
            spacing_mm=drawn.spacing_mm if thick else None,
            deface=drawn.deface and not stripped,
        )


FAMILIES: Mapping[str, Family] = {
    "sim-t1w-3t": Family("t1w", (0.005, 0.05), (0.3, 1.6), (0.0, 0.30), 0.4, 0.34),
    "sim-t1w-1p5t": Family("t1w", (0.015, 0.08), (0.6, 2.2), (0.0, 0.35), 0.5, 0.30),
    "sim-t2w-3t": Family("t2w", (0.005, 0.06), (0.3, 1.8), (0.0, 0.30), 0.4, 0.20),
    "sim-pd-3t": Family("pd", (0.005, 0.05), (0.3, 1.8), (0.0, 0.30), 0.4, 0.08),
    "sim-flair-3t": Family("flair", (0.005, 0.06), (0.3, 1.8), (0.0, 0.30), 0.4, 0.08),
}


def turns(shares: Mapping[str, float], steps: int) -> list[str]:
    """Which domain each step trains: evenly mixed, in proportion to its share.

    Parameters
    ----------
    shares : of any sum

    Returns
    -------
    (steps,) names
    """
    total = sum(shares.values())
    owed = dict.fromkeys(shares, 0.0)
    order = []
    for _ in range(steps):
        for name, share in shares.items():
            owed[name] += share / total
        name = max(owed, key=lambda domain: owed[domain])
        owed[name] -= 1
        order.append(name)
    return order
