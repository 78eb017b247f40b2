"""From scores to classes: slice by slice, or with a say for the slices beside one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Labelling:
    """The classes of some slices, whose scores come batch by batch, in order.

    A network that sees one slice at a time draws ragged borders across the
    slices. Where these follow one another, the scores of the two beside a slice
    are averaged with its own; the first and the last slice stand for what lies
    beyond them.

    Parameters
    ----------
    shape : N H W of all slices
    weight : of each of the two neighbours' scores, 0 to 0.5; 0: every slice by itself
    """

    def __init__(self, shape: tuple[int, ...], weight: float = 0.0) -> None:
        self.classes = np.zeros(shape, np.uint8)
        self._weight = weight
        self._taken = 0
        self._held: list[Any] = []  # the last two slices, as each way wants them

    @property
    def done(self) -> bool:
        """Whether the scores of all slices have been taken."""
        return self._taken == len(self.classes)

    def take(self, logits: Tensor) -> None:
        """The scores of the next slices, N K H W; they may be written over afterwards."""
        start, self._taken = self._taken, self._taken + len(logits)
        own = likeliest(logits)
        self.classes[start : self._taken] = own
        if not self._weight:
            return
        if logits.device.type == "cpu" and logits.dtype == torch.float32:
            self._average_where_they_differ(start, logits.numpy(), own)
        else:
            self._average(start, logits)

    def _average_where_they_differ(
        self, start: int, scores: NDArray[np.float32], own: NDArray[np.uint8]
    ) -> None:
        """Where three slices have one class already, an average has no other."""
        at = start - len(self._held)
        known = [*self._held, *zip(scores, own, strict=True)]
        for place in self._settled(at, len(known)):
            three = before, here, after = self._around(known, place)
            differ = np.flatnonzero((here[1] != before[1]) | (here[1] != after[1]))
            if differ.size:
                mixed = self._mixed(*(one[0].reshape(len(one[0]), -1)[:, differ] for one in three))
                self.classes[at + place].reshape(-1)[differ] = mixed.argmax(0)
        self._held = [(one.copy(), classes) for one, classes in known[-2:]]

    def _average(self, start: int, logits: Tensor) -> None:
        at = start - len(self._held)
        known = [*self._held, *logits.float()]
        for place in self._settled(at, len(known)):
            mixed = self._mixed(*self._around(known, place))
            self.classes[at + place] = mixed.argmax(0).to("cpu", torch.uint8).numpy()
        self._held = [one.clone() for one in known[-2:]]

    def _settled(self, at: int, count: int) -> range:
        """Which of `count` known slices from `at` on have not been averaged and can be now."""
        return range(1 if at else 0, count if self.done else count - 1)

    def _around(self, known: list[Any], place: int) -> tuple[Any, Any, Any]:
        last = len(known) - 1
        return known[max(place - 1, 0)], known[place], known[min(place + 1, last)]

    def _mixed(self, before: Any, here: Any, after: Any) -> Any:
        return (1 - 2 * self._weight) * here + self._weight * (before + after)


def likeliest(logits: Tensor) -> NDArray[np.uint8]:
    """The class with the highest score, N H W uint8, of scores N K H W."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        classes: NDArray[np.uint8] = logits.numpy().argmax(1).astype(np.uint8)
        return classes  # thrice as fast as torch's
    return logits.argmax(1).to("cpu", torch.uint8).numpy()
