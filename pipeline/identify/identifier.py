"""Where a scan lies among all scans, and how near that is to a domain's own.

A scan is described by its own batch-norm statistics (`models.features`), which are then
whitened: along every axis scans of one scanner spread by 1. There a domain is a normal
distribution. A built-in one is as wide as the family of scanners that it was trained on,
one that a site has adapted as narrow as its own cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.backbone import SHIPPED as SHIPPED_BACKBONE
from models.features import FeatureExtractor
from models.hashing import hash_tensors
from normbank.entities import Signature
from normbank.imaging.scan import Scan
from pipeline.identify.core import Core, core_of

SHIPPED = SHIPPED_BACKBONE.with_name("identifier.safetensors")

_PRIOR_CASES = 8.0  # that a variance of 1 weighs against that of a domain's own cases

_MEAN, _COVARIANCE = "mean.", "covariance."  # then a state's sha256
_EXTRACTOR = tuple(field.name for field in fields(FeatureExtractor))
_WHITENING = ("middle", "scale", "whitening")

Vector = npt.NDArray[np.float64]


class BrokenIdentifierError(ValueError):
    """The identifier's file does not hold what it says."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """A domain's scans as a normal distribution.

    Attributes
    ----------
    mean : (K,)
    covariance : (K, K)
    """

    mean: Vector
    covariance: npt.NDArray[np.float64]

    def distance(self, place: Vector) -> float:
        """Standard deviations per axis between a scan (K,) and the middle; 1 is ordinary."""
        apart = place - self.mean
        return float(np.sqrt(apart @ np.linalg.solve(self.covariance, apart) / len(apart)))

    def log_density(self, place: Vector) -> float:
        """Up to a constant that is the same for all domains."""
        squared = self.distance(place) ** 2 * len(place)
        return float(-0.5 * (squared + np.linalg.slogdet(self.covariance)[1]))

    @classmethod
    def of_signature(cls, signature: Signature) -> Self:
        """What a few cases say of a scanner; the fewer they are, the wider."""
        mean, own = np.array(signature.mean), np.array(signature.spread) ** 2
        count = signature.cases
        summed = _PRIOR_CASES + count * own
        variance = summed / (_PRIOR_CASES + count - 1) * (1 + 1 / count)
        return cls(mean, np.diag(variance))


@dataclass(frozen=True, eq=False)
class Identifier:
    """What describes scans, and where those of the built-in domains lie.

    Attributes
    ----------
    middle, scale : (F,), of the features
    whitening : (F, K)
    built_in : by the sha256 of a built-in domain's state
    """

    extractor: FeatureExtractor
    middle: Vector
    scale: Vector
    whitening: npt.NDArray[np.float64]
    built_in: Mapping[str, Cloud]

    @cached_property
    def space(self) -> str:
        """Names what the places mean: a content hash."""
        return hash_tensors(self._described())

    def place(self, scan: Scan) -> Vector:
        """Where a scan lies, (K,).

        Raises
        ------
        EmptyScanError
            See `core_of`.
        """
        return self.place_of(core_of(scan))

    def place_of(self, core: Core) -> Vector:
        """Where the scan of this core lies, (K,)."""
        features = self.extractor(core.slices, core.inside)
        return np.asarray((features - self.middle) / self.scale @ self.whitening)

    def signature(self, places: Sequence[Vector]) -> Signature:
        """What a domain's cases have in common.

        Parameters
        ----------
        places : (K,) of each; at least one
        """
        stacked = np.stack(places)
        mean, spread = stacked.mean(0).tolist(), stacked.std(0).tolist()
        return Signature(self.space, tuple(mean), tuple(spread), len(stacked))

    def cloud(self, state_sha256: str, signature: Signature | None) -> Cloud | None:
        """Where a state's scans lie; None where nobody has said so in this space."""
        fits = signature is not None and len(signature.mean) == self.whitening.shape[1]
        if signature is not None and fits and signature.space == self.space:
            return Cloud.of_signature(signature)
        return self.built_in.get(state_sha256)

    def save(self, path: Path) -> None:
        """Write a file that `read` reads."""
        tensors = self._described()
        for sha256, cloud in self.built_in.items():
            tensors[f"{_MEAN}{sha256}"] = _tensor(cloud.mean)
            tensors[f"{_COVARIANCE}{sha256}"] = _tensor(cloud.covariance)
        save_file(tensors, path, {"space": self.space})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `save` has written.

        Raises
        ------
        BrokenIdentifierError
        FileNotFoundError
        """
        try:
            tensors = load_file(path)
            extractor = FeatureExtractor(**{name: tensors[name] for name in _EXTRACTOR})
            middle, scale, whitening = (tensors[name].double().numpy() for name in _WHITENING)
            built_in = {
                name.removeprefix(_MEAN): Cloud(
                    tensor.double().numpy(),
                    tensors[_COVARIANCE + name.removeprefix(_MEAN)].double().numpy(),
                )
                for name, tensor in tensors.items()
                if name.startswith(_MEAN)
            }
        except (SafetensorError, KeyError, ValueError) as error:
            raise BrokenIdentifierError("the identifier's file cannot be read") from error
        return cls(extractor, middle, scale, whitening, built_in)

    def _described(self) -> dict[str, Tensor]:
        """All that decides where a scan lies."""
        tensors = {name: getattr(self.extractor, name) for name in _EXTRACTOR}
        return tensors | {name: _tensor(getattr(self, name)) for name in _WHITENING}


@cache
def shipped_identifier() -> Identifier:
    """The one that is shipped, read once.

    Raises
    ------
    BrokenIdentifierError
    """
    return Identifier.read(SHIPPED)


def _tensor(numbers: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, np.float32))
