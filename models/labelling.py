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
        if not self._weight:
            self.classes[start : self._taken] = likeliest(logits)
        elif logits.device.type == "cpu" and logits.dtype == torch.float32:
            self._average_where_they_differ(start, logits)
        else:
            self._average(start, logits)

    def _average_where_they_differ(self, start: int, logits: Tensor) -> None:
        """Where three slices have one class already, an average has no other."""
        at, own = start - len(self._held), likeliest(logits)
        self.classes[start : self._taken] = own
        known = [*self._held, *zip(logits.numpy(), own, strict=True)]
        last = len(known) - 1
        for place in self._settled(at, len(known)):
            three = before, here, after = (
                known[max(place - 1, 0)],
                known[place],
                known[min(place + 1, last)],
            )
            differ = np.flatnonzero((here[1] != before[1]) | (here[1] != after[1]))
            if differ.size:
                mixed = self._mixed(*(one[0].reshape(len(one[0]), -1)[:, differ] for one in three))
                self.classes[at + place].reshape(-1)[differ] = mixed.argmax(0)
        self._held = [(scores.copy(), classes) for scores, classes in known[-2:]]

    def _average(self, start: int, logits: Tensor) -> None:
        """All at once, as a GPU likes it."""
        at = start - len(self._held)
        known = torch.stack([*self._held, *logits.float()])
        places = self._settled(at, len(known))
        if places:
            here = torch.arange(places.start, places.stop, device=known.device)
            before, after = (here - 1).clamp(min=0), (here + 1).clamp(max=len(known) - 1)
            mixed = self._mixed(known[before], known[here], known[after])
            self.classes[at + places.start : at + places.stop] = likeliest(mixed)
        self._held = list(known[-2:].clone())

    def _settled(self, at: int, count: int) -> range:
        """Which of `count` known slices from `at` on have not been averaged and can be now."""
        return range(1 if at else 0, count if self.done else count - 1)

    def _mixed(self, before: Any, here: Any, after: Any) -> Any:
        return (1 - 2 * self._weight) * here + self._weight * (before + after)


def likeliest(logits: Tensor) -> NDArray[np.uint8]:
    """The class with the highest score, N H W uint8, of scores N K H W."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        classes: NDArray[np.uint8] = logits.numpy().argmax(1).astype(np.uint8)
        return classes  # thrice as fast as torch's
    return logits.argmax(1).to("cpu", torch.uint8).numpy()
