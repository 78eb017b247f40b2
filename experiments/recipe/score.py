"""Dice of a trained variant, zero-shot, on the grid of 2 mm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from experiments.recipe.cases import SPEC, Scans
from models.bank import Bank, affine
from models.decoder import binomial
from models.train import Trained
from normbank.anatomy import EVALUATED, classes_of
from normbank.imaging.metrics import dice

BATCH = 16

Scores = npt.NDArray[np.float32]
"""N K H W, logits of axial slices."""


def domain_of(family: str, plane: str) -> str:
    """A scanner's state is private to a plane."""
    return family if plane == "axial" else f"{family}/{plane}"


def turned(volumes: npt.NDArray[np.generic], plane: str) -> npt.NDArray[np.generic]:
    """Slices (..., N, H, W) of another plane for axial ones; a view."""
    return volumes if plane == "axial" else np.swapaxes(volumes, -3, -1)


def with_neighbours(
    slices: npt.NDArray[np.generic], picks: npt.NDArray[np.integer], inputs: int
) -> npt.NDArray[np.generic]:
    """(n, C, H, W): the picked slices of N H W, each between its neighbours.

    Beyond the first and the last slice these two stand for those not there.
    """
    around = picks[:, None] + np.arange(inputs) - inputs // 2
    found: npt.NDArray[np.generic] = slices[np.clip(around, 0, len(slices) - 1)]
    return found


class Network:
    """A trained network that looks at volumes along one plane."""

    def __init__(self, trained: Trained, plane: str, precision: torch.dtype) -> None:
        self._backbone, self._states = trained.backbone, trained.states
        self._plane, self._precision = plane, precision
        self._bank = Bank(trained.backbone)

    @torch.inference_mode()
    def scores(self, volume: npt.NDArray[np.float16], domain: str) -> Scores:
        """Logits of a volume (N, H, W) of axial slices, every second one seen in the mirror."""
        index = self._bank.add(self._states[domain])
        network, slices = self._backbone.network, turned(volume, self._plane)
        found = []
        for start in range(0, len(slices), BATCH):
            picks = np.arange(start, min(start + BATCH, len(slices)))
            shown = with_neighbours(slices, picks, self._backbone.spec.inputs).astype(np.float32)
            shown[1::2] = shown[1::2, :, ::-1]
            table, heads = self._bank.gather(torch.full((len(picks),), index))
            images = torch.from_numpy(shown).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", self._precision):
                logits = network(images, affine(table), heads).float().numpy().copy()
            logits[1::2] = logits[1::2, :, ::-1]
            found.append(logits)
        volume_scores = np.concatenate(found)
        if self._plane == "coronal":  # Y K X Z -> Z K X Y
            volume_scores = np.ascontiguousarray(volume_scores.transpose(3, 1, 2, 0))
        return volume_scores


def reached(scores: Scores, reach: int) -> Scores:
    """Averaged over `reach` slices on either side, as `models.decoder` does."""
    picks = np.arange(len(scores))
    found = np.zeros_like(scores)
    for n, weight in enumerate(binomial(reach)):
        found += np.float32(weight) * scores[np.clip(picks + n - reach, 0, len(scores) - 1)]
    return found


def mean_dice(
    answer: npt.NDArray[np.integer],
    reference: npt.NDArray[np.uint8],
    annotated: npt.NDArray[np.bool_],
) -> float:
    """Mean over the evaluated structures that are annotated."""
    found = []
    for name in EVALUATED:
        numbers = classes_of(name, SPEC.classes)
        if annotated[list(numbers)].all():
            found.append(dice(np.isin(answer, numbers), np.isin(reference, numbers)) or 0.0)
    return float(np.mean(found))


def ways(by_plane: dict[str, Scores]) -> Iterator[tuple[str, Scores]]:
    """How a volume can be answered: by a plane alone, with neighbours, by all planes."""
    yield from by_plane.items()
    yield "axial, reach 1", reached(by_plane["axial"], 1)
    if len(by_plane) > 1:
        yield "both", np.mean(list(by_plane.values()), axis=0)


def judge(
    trained: Trained, planes: Sequence[str], scans: Scans, states: Sequence[str]
) -> Iterator[tuple[str, str, str, float]]:
    """Scores of every scan: (way of answering, group of scans, state, mean Dice).

    Parameters
    ----------
    states : those that real scans are seen with; a simulated one has its own
    """
    networks = {plane: Network(trained, plane, torch.bfloat16) for plane in planes}
    for number, group in enumerate(scans.domains):
        for state in [group] if group in trained.states and group != "cc0" else states:
            by_plane = {
                plane: network.scores(scans.images[number], domain_of(state, plane))
                for plane, network in networks.items()
            }
            for way, scores in ways(by_plane):
                answer = scores.argmax(1)
                yield (
                    way,
                    group,
                    state,
                    mean_dice(answer, scans.classes[number], scans.annotated[number]),
                )
