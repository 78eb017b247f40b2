"""From scores to classes: slice by slice, or with a say for the slices around one."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.spec import BackboneSpec


class Labelling:
    """The classes of some slices, whose scores come batch by batch, in order.

    A network that sees one slice at a time draws ragged borders across the
    slices, and errs a little to one side. Where slices follow one another,
    every second one is therefore shown to it in the mirror, and the scores of
    those around a slice are averaged with its own by binomial weights, in
    which both sides of the mirror count the same. The first and the last slice
    stand for what lies beyond them.

    Parameters
    ----------
    shape : N H W of all slices; H runs from left to right
    reach : slices on either side that have a say; 0: every slice by itself,
        and none in the mirror

    Raises
    ------
    ValueError
        A negative reach.
    """

    def __init__(self, shape: tuple[int, ...], reach: int = 0) -> None:
        if reach < 0:
            raise ValueError(f"slices cannot reach {reach} others")
        self.classes = np.zeros(shape, np.uint8)
        self._weights = binomial(reach)
        self._reach = reach
        self._taken = 0
        self._settled = 0
        self._held: list[Any] = []  # what the next slices have to be averaged with

    @classmethod
    def of(cls, spec: BackboneSpec, shape: tuple[int, ...], *, consecutive: bool) -> Self:
        """By a backbone's conventions, which hold for slices that follow one another."""
        return cls(shape, spec.slice_reach if consecutive else 0)

    @property
    def done(self) -> bool:
        """Whether the scores of all slices have been taken."""
        return self._taken == len(self.classes)

    def shown(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """All slices, N H W, as the network shall see them."""
        if not self._reach:
            return slices
        slices = slices.copy()
        slices[1::2] = slices[1::2, ::-1].copy()
        return slices

    def take(self, logits: Tensor) -> None:
        """What the network gave for the next slices, N K H W.

        It is left as it is, and may be written over afterwards.
        """
        start, self._taken = self._taken, self._taken + len(logits)
        if not self._reach:
            self.classes[start : self._taken] = likeliest(logits)
        elif logits.device.type == "cpu" and logits.dtype == torch.float32:
            self._average_where_they_differ(logits, start)
        else:
            self._average(logits, start)

    def _average_where_they_differ(self, logits: Tensor, start: int) -> None:
        """Where all slices within reach have one class already, an average has no other."""
        new = [
            _Slice.of(scores, classes, mirrored=number % 2 == 1)
            for number, (scores, classes) in enumerate(
                zip(logits.numpy(), likeliest(logits), strict=True), start
            )
        ]
        known = self._around(new)
        for first in range(len(known) - 2 * self._reach):
            within = known[first : first + len(self._weights)]
            classes = within[self._reach].classes.copy()
            differ = np.flatnonzero(np.any([one.classes != classes for one in within], axis=0))
            classes.reshape(-1)[differ] = self._averaged([s.at(differ) for s in within]).argmax(0)
            self.classes[self._settled] = classes
            self._settled += 1
        self._held = [one.kept() for one in known[-2 * self._reach :]]

    def _average(self, logits: Tensor, start: int) -> None:
        """All at once, as a GPU likes it."""
        new = logits.float()
        mirrored = torch.arange(start, start + len(new), device=new.device) % 2 == 1
        new = torch.where(mirrored.view(-1, 1, 1, 1), new.flip(2), new)
        known = torch.stack(self._around(list(new)))
        count = len(known) - 2 * self._reach
        if count > 0:
            within = [known[n : n + count] for n in range(len(self._weights))]
            found = likeliest(self._averaged(within))
            self.classes[self._settled : self._settled + count] = found
            self._settled += count
        self._held = list(known[-2 * self._reach :])

    def _around(self, new: list[Any]) -> list[Any]:
        """New slices behind those that were held; the outermost stand for what lies beyond."""
        before = self._held or new[:1] * self._reach
        return [*before, *new, *(new[-1:] * self._reach if self.done else ())]

    def _averaged(self, within: list[Any]) -> Any:
        return sum(weight * one for weight, one in zip(self._weights, within, strict=True))


@dataclass(frozen=True)
class _Slice:
    """Scores K H W as the network gave them, classes H W as the scan lies."""

    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    mirrored: bool
    own: bool = False

    @classmethod
    def of(cls, scores: NDArray[np.float32], classes: NDArray[np.uint8], *, mirrored: bool) -> Self:
        return cls(scores, classes[::-1] if mirrored else classes, mirrored)

    def at(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores (K, P) at places of the flattened slice, as the scan lies."""
        if self.mirrored:
            height, width = self.classes.shape
            places = places + width * (height - 1 - 2 * (places // width))
        return self.scores.reshape(len(self.scores), -1)[:, places]

    def kept(self) -> _Slice:
        """In memory that nobody writes over."""
        return self if self.own else _Slice(self.scores.copy(), self.classes, self.mirrored, True)


def binomial(reach: int) -> list[float]:
    """Weights of 2 reach + 1 slices, their sum 1; those of every second one sum up to 1/2."""
    return [comb(2 * reach, n) / 4**reach for n in range(2 * reach + 1)]


def likeliest(logits: Tensor) -> NDArray[np.uint8]:
    """The class with the highest score, N H W uint8, of scores N K H W."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        classes: NDArray[np.uint8] = logits.numpy().argmax(1).astype(np.uint8)
        return classes  # thrice as fast as torch's
    return logits.argmax(1).to("cpu", torch.uint8).numpy()
