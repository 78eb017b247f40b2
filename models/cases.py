"""Labelled slices: what adaptation and training look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class SlicedCase(Protocol):
    """One case in the network's space, in memory or in files."""

    @property
    def annotated(self) -> NDArray[np.bool_]: ...
    @property
    def consecutive(self) -> bool: ...

    def opened(self) -> LabelledSlices:
        """Its slices; ask again rather than keep them: those in files cost memory while held."""

    def part(self, numbers: NDArray[np.intp], rows: slice, columns: slice) -> Self:
        """Some of its slices, and of these a rectangle."""


@dataclass(frozen=True)
class LabelledSlices:
    """One case in the network's space.

    Attributes
    ----------
    images : N H W float32, intensities by percentile
    classes : N H W uint8, in the order of the backbone's classes
    annotated : (K,) bool, which classes the reference can be asked about
    consecutive : whether the slices follow one another without gaps
    """

    images: NDArray[np.float32]
    classes: NDArray[np.uint8]
    annotated: NDArray[np.bool_]
    consecutive: bool = False

    def opened(self) -> LabelledSlices:
        """Itself; see `SlicedCase`."""
        return self

    def part(self, numbers: NDArray[np.intp], rows: slice, columns: slice) -> LabelledSlices:
        """See `SlicedCase`."""
        return LabelledSlices(
            self.images[numbers][:, rows, columns],
            self.classes[numbers][:, rows, columns],
            self.annotated,
        )

    def showing(self, stride: int) -> LabelledSlices:
        """Every n-th slice that holds an annotated structure, and no others."""
        everything = slice(None)
        return self.part(slices_showing(self, self.annotated, stride), everything, everything)


@dataclass(frozen=True)
class StoredSlices:
    """The same in two files, of which no more is in memory than is looked at.

    Attributes
    ----------
    images, classes : `.npy` files of N H W
    picked : numbers of slices, rows and columns that count; None: everything
    """

    images: Path
    classes: Path
    annotated: NDArray[np.bool_]
    consecutive: bool = False
    picked: tuple[NDArray[np.intp], slice, slice] | None = None

    @classmethod
    def of(cls, case: LabelledSlices, folder: Path, name: str) -> StoredSlices:
        """Write a case into a folder; `name` tells it from others there."""
        images, classes = folder / f"{name}-images.npy", folder / f"{name}-classes.npy"
        np.save(images, case.images)
        np.save(classes, case.classes)
        return cls(images, classes, case.annotated, case.consecutive)

    def opened(self) -> LabelledSlices:
        """See `SlicedCase`; mapped anew each time, so that memory is given back with it."""
        images, classes = map_array(self.images), map_array(self.classes)
        whole = LabelledSlices(images, classes, self.annotated, self.consecutive)
        return whole if self.picked is None else whole.part(*self.picked)

    def part(self, numbers: NDArray[np.intp], rows: slice, columns: slice) -> StoredSlices:
        """See `SlicedCase`."""
        if self.picked is not None:
            raise ValueError("a part of a part is not kept")
        picked = numbers, rows, columns
        return StoredSlices(self.images, self.classes, self.annotated, picked=picked)


def map_array(path: Path) -> NDArray[Any]:
    """A `.npy` file as an array whose pages are read when they are looked at."""
    # "c": may be written to, as torch wants it, but the file stays as it is.
    return np.asarray(np.load(path, mmap_mode="c"))


def slices_showing(
    case: LabelledSlices, annotated: NDArray[np.bool_], stride: int
) -> NDArray[np.intp]:
    """Numbers of every n-th slice among those that hold one of these classes, but background."""
    numbers = np.flatnonzero(annotated & (np.arange(len(annotated)) > 0))
    return np.flatnonzero(np.isin(case.classes, numbers).any((1, 2)))[stride // 2 :: stride]


def frame_of(
    cases: Sequence[SlicedCase], *, margin: int = 8, least: int = 128, multiple: int = 16
) -> tuple[slice, slice]:
    """The part of a slice that holds all annotated structures of all cases.

    Parameters
    ----------
    margin : pixels kept around them
    least : pixels at least, for the context around small structures
    multiple : the sizes are divisible by it

    Returns
    -------
    slices of H and of W; never beyond the image
    """
    height, width = cases[0].opened().images.shape[1:]
    rows, columns = np.zeros(height, bool), np.zeros(width, bool)
    for case in cases:
        shown = np.isin(case.opened().classes, np.flatnonzero(case.annotated[1:]) + 1)
        rows |= shown.any((0, 2))
        columns |= shown.any((0, 1))
    return tuple(_span(held, margin, least, multiple) for held in (rows, columns))  # type: ignore[return-value]


def _span(held: NDArray[np.bool_], margin: int, least: int, multiple: int) -> slice:
    where = np.flatnonzero(held)
    if not where.size:
        return slice(0, len(held))
    length = max(int(where[-1] - where[0]) + 1 + 2 * margin, least)
    size = min(-(-length // multiple) * multiple, len(held))
    start = int(where[0] + where[-1] + 1 - size) // 2
    start = min(max(start, 0), len(held) - size)
    return slice(start, start + size)


def structures_shown(case: SlicedCase) -> NDArray[np.bool_]:
    """Which annotated structures each slice shows, (N, K - 1): without the background."""
    count = len(case.annotated)
    held = np.stack(
        [np.bincount(labels.ravel(), minlength=count) > 0 for labels in case.opened().classes]
    )
    return (held & case.annotated)[:, 1:]


class Sampler:
    """Random slices of several cases; those that show more structures more often.

    Parameters
    ----------
    cases : at least one; of those in files, the drawn slices alone are read
    seed : of the draws
    """

    def __init__(self, cases: Sequence[SlicedCase], seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._cases = cases
        shown = [structures_shown(case) for case in cases]
        self._starts = np.cumsum([0, *map(len, shown)])
        self._weights = torch.from_numpy(np.concatenate(shown).sum(1).astype(np.float64))

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slices with replacement.

        Returns
        -------
        images : N 1 H W float32
        classes : N H W int64
        annotated : N K bool
        """
        picks = torch.multinomial(self._weights, count, True, generator=self._random).numpy()
        whose = np.searchsorted(self._starts, picks, "right") - 1
        opened = {case: self._cases[case].opened() for case in set(whose.tolist())}
        drawn = [
            (opened[c], pick) for c, pick in zip(whose, picks - self._starts[whose], strict=True)
        ]
        images = np.stack([case.images[number] for case, number in drawn])
        classes = np.stack([case.classes[number] for case, number in drawn])
        annotated = np.stack([case.annotated for case, _ in drawn])
        return (
            torch.from_numpy(images)[:, None],
            torch.from_numpy(classes).long(),
            torch.from_numpy(annotated),
        )
