"""From scores to classes: slice by slice, or with a say for the slices beside one."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.spec import BackboneSpec


class Labelling:
    """The classes of some slices, whose scores come batch by batch, in order.

    A network that sees one slice at a time draws ragged borders across the
    slices. Where these follow one another, the scores of the two beside a slice
    are averaged with its own; the first and the last slice stand for what lies
    beyond them.

    Parameters
    ----------
    shape : N H W of all slices
    weight : of each of the two neighbours' scores; 0: every slice by itself

    Raises
    ------
    ValueError
        A weight that is not from 0 to 0.5.
    """

    def __init__(self, shape: tuple[int, ...], weight: float = 0.0) -> None:
        if not 0 <= weight <= 0.5:
            raise ValueError(f"a neighbour's weight lies between 0 and 0.5, not at {weight}")
        self.classes = np.zeros(shape, np.uint8)
        self._weight = weight
        self._taken = 0
        self._settled = 0
        self._held: list[Any] = []  # the last two slices; the first one stands twice

    @classmethod
    def of(cls, spec: BackboneSpec, shape: tuple[int, ...], *, consecutive: bool) -> Self:
        """By a backbone's conventions, which hold for slices that follow one another."""
        return cls(shape, spec.neighbour_weight if consecutive else 0.0)

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
            self._average_where_they_differ(logits)
        else:
            self._average(logits)

    def _average_where_they_differ(self, logits: Tensor) -> None:
        """Where three slices have one class already, an average has no other."""
        new = list(zip(logits.numpy(), likeliest(logits), strict=True))
        known = [*(self._held or new[:1]), *new, *(new[-1:] if self.done else ())]
        for before, here, after in zip(known, known[1:], known[2:], strict=False):
            classes = here[1].copy()
            differ = np.flatnonzero((classes != before[1]) | (classes != after[1]))
            three = (one[0].reshape(len(one[0]), -1)[:, differ] for one in (before, here, after))
            classes.reshape(-1)[differ] = self._averaged(*three).argmax(0)
            self.classes[self._settled] = classes
            self._settled += 1
        self._held = [(scores.copy(), classes) for scores, classes in known[-2:]]

    def _average(self, logits: Tensor) -> None:
        """All at once, as a GPU likes it."""
        new = logits.float()
        held = self._held or [new[:1]]
        known = torch.cat([*held, new, new[-1:] if self.done else new[:0]])
        found = likeliest(self._averaged(known[:-2], known[1:-1], known[2:]))
        self.classes[self._settled : self._settled + len(found)] = found
        self._settled += len(found)
        self._held = [known[-2:].clone()]

    def _averaged(self, before: Any, here: Any, after: Any) -> Any:
        return (1 - 2 * self._weight) * here + self._weight * (before + after)


def likeliest(logits: Tensor) -> NDArray[np.uint8]:
    """The class with the highest score, N H W uint8, of scores N K H W."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        classes: NDArray[np.uint8] = logits.numpy().argmax(1).astype(np.uint8)
        return classes  # thrice as fast as torch's
    return logits.argmax(1).to("cpu", torch.uint8).numpy()
