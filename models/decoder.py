"""From scores to classes: slice by slice, or with a say for the slices around one."""

from __future__ import annotations

from math import comb
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.spec import BackboneSpec


class SliceDecoder:
    """The classes of some slices, whose scores come batch by batch, in order.

    A network that sees one slice at a time draws ragged borders across the
    slices, and errs a little to one side. Where slices follow one another,
    every second one is therefore shown to it in the mirror, and the scores of
    those around a slice are averaged with its own by binomial weights, in
    which both sides of the mirror count the same. Beyond the first and the
    last slice these two stand for those that are not there.

    Parameters
    ----------
    slices : N H W; H runs from left to right
    reach : slices on either side that have a say; 0: every slice by itself,
        and none in the mirror

    Attributes
    ----------
    inputs : N H W, the slices as the network shall see them
    classes : N H W uint8, as the slices lie; complete once all scores are taken
    """

    def __init__(self, slices: NDArray[np.float32], reach: int = 0) -> None:
        self.inputs = slices
        if reach:
            self.inputs = slices.copy()
            self.inputs[1::2] = slices[1::2, ::-1]
        self.classes = np.zeros(slices.shape, np.uint8)
        self._weights = binomial(reach)
        self._reach = reach
        self._taken = 0
        self._settled = 0
        self._held: list[Any] = []  # what the next slices have to be averaged with

    @classmethod
    def of(cls, spec: BackboneSpec, slices: NDArray[np.float32], *, consecutive: bool) -> Self:
        """By a backbone's conventions, which hold for slices that follow one another."""
        return cls(slices, spec.slice_reach if consecutive else 0)

    @property
    def done(self) -> bool:
        """Whether the scores of all slices have been taken."""
        return self._taken == len(self.classes)

    def add(self, logits: Tensor) -> None:
        """What the network gave for the next slices that it was shown, N K H W.

        It is left as it is, and may be written over afterwards.
        """
        start, self._taken = self._taken, self._taken + len(logits)
        if not self._reach:
            self.classes[start : self._taken] = argmax_classes(logits)
        elif _on_cpu(logits):
            self._average_where_they_differ(logits.float(), start)
        else:
            self._average(logits.float(), start)
        if self.done:
            self._held = []

    def _average_where_they_differ(self, logits: Tensor, start: int) -> None:
        """Where all slices within reach have one class already, an average has no other."""
        new = [
            (scores[:, ::-1], classes[::-1]) if number % 2 else (scores, classes)
            for number, (scores, classes) in enumerate(
                zip(logits.numpy(), argmax_classes(logits), strict=True), start
            )
        ]
        pairs = self._around(new)
        for first in range(len(pairs) - 2 * self._reach):
            within = pairs[first : first + len(self._weights)]
            classes = within[self._reach][1].copy()
            differ = np.nonzero(np.any([pair[1] != classes for pair in within], axis=0))
            classes[differ] = self._averaged([pair[0][:, *differ] for pair in within]).argmax(0)
            self._settle(classes[None])
        if not self.done:
            self._held = [(scores.copy(), classes) for scores, classes in pairs[-2 * self._reach :]]

    def _average(self, logits: Tensor, start: int) -> None:
        """All at once, as a GPU likes it."""
        new = [
            scores.flip(1) if number % 2 else scores for number, scores in enumerate(logits, start)
        ]
        stack = torch.stack(self._around(new))
        count = max(len(stack) - 2 * self._reach, 0)
        within = [stack[n : n + count] for n in range(len(self._weights))]
        self._settle(argmax_classes(self._averaged(within)))
        self._held = list(stack[-2 * self._reach :].clone())

    def _around(self, new: list[Any]) -> list[Any]:
        """New slices behind those that were held; the outermost stand for what lies beyond."""
        before = self._held or new[:1] * self._reach
        return [*before, *new, *(new[-1:] * self._reach if self.done else ())]

    def _averaged(self, within: list[Any]) -> Any:
        return sum(weight * scores for weight, scores in zip(self._weights, within, strict=True))

    def _settle(self, classes: NDArray[np.uint8]) -> None:
        start, self._settled = self._settled, self._settled + len(classes)
        self.classes[start : self._settled] = classes


def binomial(reach: int) -> list[float]:
    """Weights of 2 reach + 1 slices, their sum 1; from a reach of 1 on, those of every
    second slice sum up to 1/2.
    """
    return [comb(2 * reach, n) / 4**reach for n in range(2 * reach + 1)]


def argmax_classes(logits: Tensor) -> NDArray[np.uint8]:
    """The class with the highest score, N H W uint8, of scores N K H W; of equal ones the first."""
    if not _on_cpu(logits):
        classes: NDArray[np.uint8] = logits.argmax(1).to("cpu", torch.uint8).numpy()
        return classes
    scores = logits.float().numpy()
    answer = np.zeros((len(scores), *scores.shape[2:]), np.uint8)
    if not logits.is_contiguous():
        answer[:] = scores.argmax(1)
        return answer
    for planes, into in zip(scores, answer, strict=True):  # in a fifth of argmax's time
        best = planes.max(0)
        lower = np.ones(best.shape, bool)
        for plane in planes[:-1]:
            lower &= plane != best
            into += lower.view(np.uint8)  # counts the classes in front of the best one
    return answer


def _on_cpu(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16)
