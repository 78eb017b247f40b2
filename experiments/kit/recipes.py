"""How networks and states learn: one vocabulary for every study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.adapt import Tuning
from normbank import entities
from pipeline.adapt import tuning_of


@dataclass(frozen=True)
class Training:
    """Settings with which all weights of a network are trained.

    Attributes
    ----------
    steps : optimiser steps
    batch_size : slices per step
    learning_rate : Adam's, at the start of a cosine decay
    warm_up : steps over which the learning rate rises
    validate_every : steps between two validation points
    slice_stride : a validation scores every n-th slice
    crop : rows and columns of the random crops; None: whole slices
    """

    steps: int
    batch_size: int = 4
    learning_rate: float = 2e-3
    warm_up: int = 30
    validate_every: int = 100
    slice_stride: int = 4
    crop: tuple[int, int] | None = None

    def stage_key(self) -> dict[str, Any]:
        """The settings as keys of stored stages name them, so that old stages are found."""
        steps = {"steps": self.steps, "shared_steps": self.steps}
        return steps | _renamed(
            self, {"batch_size": "batch", "learning_rate": "rate", "validate_every": "look_every"}
        )


@dataclass(frozen=True)
class Recipe:
    """Settings with which a state is adapted, or a whole network fine-tuned.

    Attributes
    ----------
    seed : of every random draw
    steps : optimiser steps at most; the learning rate falls to 0 over them as a cosine
    batch_size : slices per step
    learning_rate : Adam's, at the start
    augment : mirror the slices at random, vary contrast and noise
    head : learn a last 1×1 convolution of the domain's own
    adapters : learn 1×1 convolutions parallel to the shared ones
    validate_every : steps between two validation points
    patience : validation points without progress before early stopping
    slice_stride : a validation scores every n-th slice
    crop : pixels (H, W) of the random crop of each slice
    """

    seed: int = 0
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-2
    augment: bool = True
    head: bool = True
    adapters: bool = True
    validate_every: int = 25
    patience: int = 3
    slice_stride: int = 4
    crop: tuple[int, int] = (144, 160)

    def tuning(self) -> Tuning:
        """The settings in the words of `models.adapt`."""
        return tuning_of(self.shipped(refit=False), self.crop)

    def shipped(self, *, refit: bool) -> entities.Recipe:
        """The settings as the service takes them; the crop is none of them."""
        return entities.Recipe.from_json(asdict(self) | {"refit": refit})

    def training(self) -> Training:
        """The same length and rate for all weights of a network."""
        return Training(
            self.steps,
            self.batch_size,
            self.learning_rate,
            warm_up=0,
            validate_every=self.validate_every,
            slice_stride=self.slice_stride,
        )

    def stage_key(self) -> dict[str, Any]:
        """The settings as keys of stored stages name them, so that old stages are found."""
        return _renamed(self, {"augment": "augmented"})


def _renamed(settings: Training | Recipe, names: Mapping[str, str]) -> dict[str, Any]:
    names = {"slice_stride": "stride", **names}
    return {names.get(name, name): value for name, value in asdict(settings).items()}
