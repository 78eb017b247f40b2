"""Volumes that are no MR scan of a brain: solids, textures, other organs as cylinders, CT, maps.

All are drawn by code, those of `of_head` from a label map. For `bench/identification.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from normbank.imaging.scan import Scan
from simulate.tissue import TISSUES, brain_mask, tissue_of

SHAPE, SPACING_MM = (96, 112, 96), 2.0

Volume = npt.NDArray[Any]
Random = np.random.Generator

X, Y, Z = np.meshgrid(
    *((np.arange(n, dtype=np.float32) - (n - 1) / 2) * SPACING_MM for n in SHAPE), indexing="ij"
)


def ellipsoid(radii: tuple[float, float, float], centre: npt.ArrayLike = (0, 0, 0)) -> Volume:
    """Below 1 inside; mm."""
    parts = zip((X, Y, Z), np.asarray(centre, float), radii, strict=True)
    return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in parts))


HEAD = ellipsoid((75, 90, 72))


def smooth(rng: Random, size_mm: float) -> Volume:
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), size_mm / SPACING_MM)
    return np.asarray(field / field.std())


def speckled(rng: Random, count: int, radius: tuple[float, float]) -> Volume:
    """Blobs of any brightness, 0 between them."""
    volume = np.zeros(SHAPE, np.float32)
    for _ in range(count):
        radii = rng.uniform(*radius, 3)
        inside = ellipsoid((radii[0], radii[1], radii[2]), rng.normal(0, 32, 3)) < 1
        volume[inside] = rng.uniform(0.1, 1)
    return volume


def shells(rng: Random) -> Volume:
    volume = np.zeros(SHAPE, np.float32)
    for limit in (1.0, 0.8, 0.6, 0.45, 0.3, 0.15):
        volume[limit > HEAD] = rng.uniform(0.1, 1)
    return volume


def pumpkin(rng: Random) -> Volume:
    edge = 85 * (1 + 0.05 * np.cos(10 * np.arctan2(Y, X)))
    depth = np.sqrt(X**2 + Y**2 + (Z / 0.8) ** 2) / edge
    flesh = np.where(depth < 0.65, 0.3 + 0.25 * smooth(rng, 4), 0.8 + 0.1 * smooth(rng, 5))
    seeds = speckled(rng, 150, (3, 9))
    return np.asarray((depth < 1) * np.where((seeds > 0) & (depth < 0.65), seeds, flesh))


def knee(rng: Random) -> Volume:
    radius = np.hypot(X, Y)
    volume = np.where(radius < 75, 0.9, 0.0)
    volume[radius < 62] = 0.35
    bone = (np.hypot(X, Y - 8) < 26 + 6 * np.exp(-np.abs(Z) / 15)) & (np.abs(Z) > 6)
    volume[ndimage.binary_dilation(bone, iterations=2)] = 0.08
    volume[bone] = 0.85
    volume[(np.abs(Z) < 5) & (radius < 40)] = 0.55
    return np.asarray(volume * (1 + 0.08 * smooth(rng, 6)))


def spine(rng: Random) -> Volume:
    volume = np.where(ellipsoid((90, 80, 400)) < 1, 0.5, 0.0) * (1 + 0.15 * smooth(rng, 10))
    column = np.hypot(X, Y + 20) < 22
    volume[column] = np.where(np.abs(Z % 36 - 18) < 13, 0.8, 0.3)[column]
    volume[np.hypot(X, Y + 50) < 8] = 0.9
    volume[np.hypot(X, Y + 50) < 4] = 0.6
    return np.asarray(volume)


def chest(rng: Random) -> Volume:
    volume = np.where(ellipsoid((94, 75, 400)) < 1, 0.6, 0.0)
    for side in (-45, 45):
        volume[ellipsoid((32, 50, 90), (side, 0, 0)) < 1] = 0.03
    volume[ellipsoid((35, 40, 45), (5, 10, 0)) < 1] = 0.5
    volume[ellipsoid((18, 20, 28), (15, 5, 0)) < 1] = 0.9
    return np.asarray(volume * (1 + 0.1 * smooth(rng, 9)))


def abdomen(rng: Random) -> Volume:
    wall = ellipsoid((94, 70, 400))
    organs = speckled(rng, 40, (8, 35))
    return np.asarray(np.where(wall < 0.8, np.where(organs > 0, organs, 0.3), 0.9) * (wall < 1))


def legs(rng: Random) -> Volume:
    volume = np.zeros(SHAPE, np.float32)
    for middle in (-45, 45):
        radius = np.hypot(X - middle, Y)
        for limit, bright in ((42, 0.9), (36, 0.4), (14, 0.1), (9, 0.8)):
            volume[radius < limit] = bright
    return np.asarray(volume * (1 + 0.1 * smooth(rng, 8)))


def grid_phantom(rng: Random) -> Volume:
    volume = np.where((np.hypot(X, Y) < 90) & (np.abs(Z) < 70), 1.0, 0.0)
    every = rng.integers(10, 20)
    volume[((X % every < 2) | (Y % 14 < 2)) & (np.abs(X) < 60) & (np.abs(Z) < 30)] = 0.1
    return np.asarray(volume)


def walnut(rng: Random) -> Volume:
    folds = np.abs(smooth(rng, 5)) > 0.3
    return np.asarray(np.where((HEAD < 0.9) & folds & (np.abs(X) > 3), 0.8, 0.1) * (HEAD < 1.1))


KINDS: Mapping[str, Callable[[Random], Volume]] = {
    "noise": lambda rng: np.abs(rng.standard_normal(SHAPE)),
    "uniform noise": lambda rng: rng.random(SHAPE),
    "smooth noise": lambda rng: (smooth(rng, rng.uniform(4, 20)) + 3).clip(0),
    "cloudy ball": lambda rng: (1 + 0.3 * smooth(rng, rng.uniform(4, 20))) * (HEAD < 1),
    "fractal ball": lambda rng: (
        (1 + sum(smooth(rng, s) * 0.04 * s**0.5 for s in (2, 4, 8, 16, 32))) * (HEAD < 1)
    ),
    "sphere": lambda rng: (ellipsoid((rng.uniform(60, 90),) * 3) < 1) * 1.0,
    "box": lambda rng: ((np.abs(X) < 70) & (np.abs(Y) < rng.uniform(60, 90))) * 1.0,
    "shells": shells,
    "onion": lambda rng: (
        (0.6 + 0.3 * np.sign(np.sin(np.sqrt(HEAD) * rng.uniform(30, 60)))) * (HEAD < 1)
    ),
    "spheres": lambda rng: np.where(speckled(rng, 60, (4, 14)) > 0, 0.2, 0.6) * (HEAD < 1),
    "checkerboard": lambda rng: ((X // 12 + Y // 12 + Z // rng.integers(6, 30)) % 2) * (HEAD < 1),
    "stripes": lambda rng: (0.5 + 0.5 * np.sin(X / rng.uniform(2, 8) + Y / 9)) * (HEAD < 1),
    "ramp": lambda rng: (Y + 112) / 224 * (rng.uniform(0.8, 1) > HEAD),
    "bottle": lambda rng: (np.hypot(X, Y) < rng.uniform(50, 80)) * (1 + 0.2 * np.cos(Y / 40)),
    "grid phantom": grid_phantom,
    "pumpkin": pumpkin,
    "walnut": walnut,
    "knee": knee,
    "legs": legs,
    "spine": spine,
    "chest": chest,
    "abdomen": abdomen,
}

_HU = {"air": -1000, "bone": 1100, "marrow": 400, "csf": 8, "ventricle": 6, "muscle": 55} | {
    name: 28 for name in TISSUES if name.endswith("-wm")
}
CT_WINDOWS = {
    "CT": (-1000, 3000),
    "CT from 0": (0, 3000),
    "CT soft": (-100, 200),
    "CT brain": (0, 80),
}


def drawn(per_kind: int) -> Iterator[tuple[str, Scan]]:
    """So many volumes of each kind, a little noise on all of them."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    for name, draw in KINDS.items():
        for seed in range(per_kind):
            rng = np.random.default_rng(1000 * seed + len(name))
            volume = np.asarray(draw(rng)).clip(0) + 0.02 * np.abs(rng.standard_normal(SHAPE))
            yield name, Scan(volume.astype(np.float32), affine)


def of_head(
    labels: npt.NDArray[np.int16], affine: npt.NDArray[np.float64], seed: int
) -> Iterator[tuple[str, Scan]]:
    """What else may be made of a head: CT in several windows, masks, label maps, PET."""
    rng, tissue = np.random.default_rng(seed), tissue_of(labels)
    units = np.array([_HU.get(name, 36) for name in TISSUES], np.float32)[tissue]
    units = ndimage.gaussian_filter(units, 0.6)
    units += rng.uniform(2, 8) * rng.standard_normal(units.shape).astype(np.float32)
    for name, (low, high) in CT_WINDOWS.items():
        yield name, Scan((units.clip(low, high) - low).astype(np.float32), affine)
    grey = np.isin(tissue, [TISSUES.index(n) for n in ("cerebral-gm", "cerebellum-gm", "putamen")])
    uptake = ndimage.gaussian_filter(np.where(grey, 1.0, 0.25 * (tissue > 0)), 3)
    yield "PET", Scan(uptake.astype(np.float32), affine)
    yield "head mask", Scan((tissue > 0).astype(np.float32), affine)
    yield "brain mask", Scan(brain_mask(labels).astype(np.float32), affine)
    yield "label map", Scan((labels % 97).astype(np.float32), affine)
    bone = ndimage.gaussian_filter((tissue == TISSUES.index("bone")).astype(np.float32), 1)
    yield "bone alone", Scan(bone, affine)
