"""Make the file that `pipeline.identify` is shipped with, from label maps alone.

    python -m training.identifier LABELMAPS --heads 12 --features FILE.npz --out FILE.safetensors

Scans are simulated: many scanners of every family of `training.families`, and some
scanners with several heads each, which show how much the scans of one scanner differ.
Features that FILE.npz holds already are not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.backbone import SHIPPED as SHIPPED_BACKBONE
from models.backbone import load_backbone
from models.features import FeatureExtractor
from models.packs import read_states
from models.spec import BackboneSpec
from normbank.imaging.resample import area_axis, resample_volume
from pipeline.identify.core import SHAPE, SPACING_MM, core_of_box
from pipeline.identify.identifier import SHIPPED, Cloud, Identifier
from training.families import FAMILIES
from training.heads import draw_core, label_maps

KEPT, AXES = 60, 24  # principal components, and axes of what is whitened
RIDGE = 0.02  # of the mean variance within a scanner, added to every component's
SHRINKAGE = 0.2  # of a family's covariance towards that of all families
REAL = 0.3  # variance added to a family's: real scanners are not quite of it
START = "sim-t1w-3t"  # whose first normalisation is used for all scans
WITHIN_SCANNERS, WITHIN_HEADS = 25, 6

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """One simulated scan.

    Attributes
    ----------
    group : what has the same scanner has the same one
    """

    name: str
    family: str
    group: str
    head: Path
    scanner_seed: int
    seed: int


def draws(maps: Sequence[Path], rounds: int) -> Iterator[Draw]:
    """Every scan to be simulated; which ones follows from nothing but the arguments."""
    for turn in range(rounds):
        for number, head in enumerate(maps):
            for place, family in enumerate(FAMILIES):
                seed = 1_000_000 + turn * 10_000 + number * 10 + place
                name = f"{family}/{turn}/{number}"
                yield Draw(name, family, name, head, seed, 2 * seed)
    for number in range(WITHIN_SCANNERS):
        family = list(FAMILIES)[number % len(FAMILIES)]
        for turn in range(WITHIN_HEADS):
            place = (number + 2 * turn) % len(maps)
            seed = 3_000_000 + number * 100 + turn
            name = f"{family}/scanner/{number}/{turn}"
            yield Draw(name, family, f"scanner/{number}", maps[place], number, seed)


@cache
def extractor() -> FeatureExtractor:
    """The first two convolutions of the shipped backbone."""
    backbone = load_backbone()
    first, second = backbone.spec.layers[:2]
    gamma, beta = read_states(SHIPPED_BACKBONE, backbone)[START].rows[:2, : first.channels]
    filters = backbone.network.convolutions
    return FeatureExtractor(
        filters[first.name].detach().clone(),
        filters[second.name].detach().clone(),
        gamma.clone(),
        beta.clone(),
    )


def features_of(draw: Draw) -> Vectors:
    """(F,) of a simulated scan."""
    scanner = FAMILIES[draw.family].scanner(np.random.default_rng(draw.scanner_seed))
    shape = tuple(round(n * SPACING_MM) for n in SHAPE)
    box = draw_core(draw.head, scanner, _spec(), (shape[0], shape[1], shape[2]), draw.seed)
    x, y, z = (area_axis(n, k, SPACING_MM) for n, k in zip(SHAPE, box.shape, strict=True))
    core = core_of_box(resample_volume(box, (x, y, z)))
    return extractor()(core.slices, core.inside)


@cache
def _spec() -> BackboneSpec:
    return load_backbone().spec


def fit(
    drawn: Sequence[Draw], features: Mapping[str, Vectors], states: Mapping[str, str]
) -> Identifier:
    """Whiten what simulated scans show, and place every family there.

    Parameters
    ----------
    features : (F,) by a draw's name
    states : a family's state, by its sha256
    """
    numbers = np.stack([features[draw.name] for draw in drawn])
    middle, scale = numbers.mean(0), numbers.std(0) + 1e-3
    scaled = (numbers - middle) / scale
    components = np.linalg.svd(scaled, full_matrices=False)[2][:KEPT].T
    kept = scaled @ components
    within = _within(kept, [draw.group for draw in drawn])
    within += RIDGE * np.trace(within) / KEPT * np.eye(KEPT)
    whitened = np.linalg.inv(np.linalg.cholesky(within)).T
    widest = np.linalg.eigh(np.cov((kept @ whitened).T))[1][:, ::-1][:, :AXES]
    whitening = components @ whitened @ widest
    places, families = scaled @ whitening, np.array([draw.family for draw in drawn])
    clouds = _clouds({family: places[families == family] for family in states})
    built_in = {states[family]: cloud for family, cloud in clouds.items()}
    return Identifier(extractor(), middle, scale, whitening, built_in)


def _within(vectors: Vectors, groups: Sequence[str]) -> Vectors:
    """Covariance of scans around the mean of their own scanner."""
    names = np.array(groups)
    apart = []
    for name in dict.fromkeys(groups):
        own = vectors[names == name]
        if len(own) > 1:
            apart.append((own - own.mean(0)) * np.sqrt(len(own) / (len(own) - 1)))
    stacked = np.concatenate(apart)
    return np.asarray(stacked.T @ stacked / len(stacked))


def _clouds(places: Mapping[str, Vectors]) -> dict[str, Cloud]:
    covariances = {family: np.cov(of.T) for family, of in places.items()}
    pooled = sum(covariances.values()) / len(covariances)
    return {
        family: Cloud(
            of.mean(0),
            (1 - SHRINKAGE) * covariances[family] + SHRINKAGE * pooled + REAL * np.eye(AXES),
        )
        for family, of in places.items()
    }


def _computed(drawn: Sequence[Draw], path: Path, workers: int) -> dict[str, Vectors]:
    """Features of every draw, kept in a file on the way."""
    known = dict(np.load(path)) if path.exists() else {}
    left = [draw for draw in drawn if draw.name not in known]
    with ProcessPoolExecutor(workers) as pool:
        for number, (draw, features) in enumerate(
            zip(left, pool.map(features_of, left, chunksize=4), strict=True), start=1
        ):
            known[draw.name] = features
            if number % 100 == 0 or number == len(left):
                np.savez(path, **known)
                print(f"{number} of {len(left)}", flush=True)
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labelmaps", type=Path)
    parser.add_argument("--heads", type=int, default=12, help="the first so many maps")
    parser.add_argument("--rounds", type=int, default=16, help="scanners per head and family")
    parser.add_argument("--features", type=Path, required=True, help="what is computed, kept")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    drawn = list(draws(label_maps(options.labelmaps)[: options.heads], options.rounds))
    features = _computed(drawn, options.features, options.workers)
    backbone = load_backbone()
    states = read_states(SHIPPED_BACKBONE, backbone)
    made = fit(drawn, features, {family: states[family].sha256 for family in FAMILIES})
    made.save(options.out)
    print(f"{made.space[:12]}: {len(drawn)} scans, {options.out.name}")


if __name__ == "__main__":
    main()
