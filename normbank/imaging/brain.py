"""Where the brain is, in a head with neck, a stripped brain, or off centre.

A guess from the outline alone is refined by what the network sees on a few
slices, and the refined centre is checked by looking again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from normbank.errors import EmptyScanError
from normbank.imaging.intensity import intensity_unit, percentile_of_greatest
from normbank.imaging.masks import largest_component, opened, profile
from normbank.imaging.window import Window

NOT_CEREBRUM = frozenset(
    {"background", "csf", "brain-stem", "cerebellum-gm", "cerebellum-wm"}
)  # the neck below a full head is easily taken for one of these

_FIRST_LOOK_EVERY_MM = 12.0  # between two slices of the look over the whole height
_LOOK_EVERY_MM = 6.0  # and of the looks at where the cerebrum was found
_AROUND_MM = 15.0  # looked at above and below it
_CLOSER_LOOKS = 2
_SETTLED_MM = 6.0  # a smaller move ends the search; along the slice axis half a step more
_CROWN_MARGIN_MM = 10.0  # kept above the cerebrum
_TOP_TO_CENTRE_MM = 72.0  # from the top of a head to the middle of its brain
_HEAD_BAND_MM = 110.0  # from the top of a head downwards there is no neck
_LEAST_CEREBRUM_ML = 100.0

Point = tuple[float, float, float]


class SlicePredictor(Protocol):
    """A network with a state: slices in, classes out."""

    def __call__(
        self, slices: npt.NDArray[np.float32], *, consecutive: bool = False
    ) -> npt.NDArray[np.uint8]:
        """Classes in the backbone's order.

        Parameters
        ----------
        slices : N H W, intensities by percentile
        consecutive : they follow one another without gaps, so that a slice's
            neighbours may have a say in its classes and every second one may
            be seen in the mirror

        Returns
        -------
        N H W
        """


class NetworkSpace(Protocol):
    """What a backbone says about the volumes it sees; `models.spec` has one."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def spacing_mm(self) -> float: ...
    @property
    def window(self) -> tuple[int, int, int]: ...
    @property
    def percentile(self) -> float: ...
    @property
    def slice_axis(self) -> int: ...


def frame_brain(
    volume: npt.NDArray[np.float32], predictor: SlicePredictor, space: NetworkSpace
) -> Window:
    """Put the network's window around the brain.

    Parameters
    ----------
    volume : (X, Y, Z) RAS+, in the network's spacing
    predictor : the network with a domain's state
    space : the backbone's conventions

    Raises
    ------
    EmptyScanError
        `empty_scan` when nothing stands out from the background, `no_brain`
        when the network sees no brain in what does.
    """
    guess = Window(space.window, guess_centre(volume, space.spacing_mm))
    look = _Look.over(volume, space, _FIRST_LOOK_EVERY_MM)
    found = look.find(volume, guess, predictor)
    for _ in range(_CLOSER_LOOKS):
        before, rough = found, look.step / 2  # how high a brain lies was known no better
        look = look.closer(found)
        found = look.find(volume, found.window, predictor)
        moved = np.abs(np.subtract(found.window.centre, before.window.centre))
        moved[space.slice_axis] -= rough
        if moved.max() * space.spacing_mm < _SETTLED_MM and look.held(found):
            return found.window
    # Misled by the first look, perhaps: once more, everything.
    look = _Look.over(volume, space, _LOOK_EVERY_MM)
    return look.find(volume, found.window, predictor).window


class _Found(NamedTuple):
    """What a look has found.

    Attributes
    ----------
    window : where it belongs
    low, high : voxels along the slice axis, the cerebrum's ends
    """

    window: Window
    low: float
    high: float


@dataclass(frozen=True)
class _Look:
    """Some slices of a volume.

    Attributes
    ----------
    height : voxels of the volume along the slice axis
    start, stop, step : which of its slices
    """

    space: NetworkSpace
    height: int
    start: int
    stop: int
    step: int

    @classmethod
    def over(cls, volume: npt.NDArray[np.float32], space: NetworkSpace, every_mm: float) -> Self:
        """A look at everything."""
        height, step = volume.shape[space.slice_axis], _voxels(every_mm, space)
        return cls(space, height, min(step, height) // 2, height, step)

    def closer(self, found: _Found) -> _Look:
        """A finer look at what was found, and around it."""
        around = _voxels(_AROUND_MM, self.space)
        start = max(round(found.low) - around, 0)
        stop = min(round(found.high) + around + 1, self.height)
        return _Look(self.space, self.height, start, stop, _voxels(_LOOK_EVERY_MM, self.space))

    def held(self, found: _Found) -> bool:
        """Whether what was found ends inside of this look, or where the volume does."""
        above = found.high + self.step < self.stop or self.stop == self.height
        below = found.low - self.step >= self.start or self.start == 0
        return above and below

    def find(
        self, volume: npt.NDArray[np.float32], window: Window, predictor: SlicePredictor
    ) -> _Found:
        """Where the window belongs.

        Parameters
        ----------
        window : where in their planes to look, and what scales them
        """
        cerebrum = self._cerebrum(volume, window, predictor)
        if cerebrum.sum() * self.step * self.space.spacing_mm**3 / 1000 < _LEAST_CEREBRUM_ML:
            raise EmptyScanError("No brain was found in the scan.", code="no_brain")
        centre, (low, high) = _centre_of(cerebrum, self)
        return _Found(Window(self.space.window, centre), low, high)

    def _cerebrum(
        self, volume: npt.NDArray[np.float32], window: Window, predictor: SlicePredictor
    ) -> npt.NDArray[np.bool_]:
        """(X, Y, Z) bool of the looked-at slices: the largest part that is cerebrum."""
        axis = self.space.slice_axis
        at: list[slice] = [slice(None)] * 3
        at[axis] = slice(self.start, self.stop, self.step)
        sparse = volume[tuple(at)]
        shape, centre = list(window.shape), list(window.centre)
        shape[axis] = sparse.shape[axis]
        centre[axis] = shape[axis] // 2
        column = Window((shape[0], shape[1], shape[2]), (centre[0], centre[1], centre[2]))
        unit = np.float32(intensity_unit(window.cut(volume), self.space.percentile))
        slices = np.ascontiguousarray(np.moveaxis(column.cut(sparse) / unit, axis, 0))
        answers = np.moveaxis(predictor(slices), 0, axis)
        is_cerebrum = np.array([name not in NOT_CEREBRUM for name in self.space.classes])
        return column.paste(_largest_part(is_cerebrum[answers]), sparse.shape)


def guess_centre(volume: npt.NDArray[np.float32], spacing_mm: float) -> Point:
    """Centre of the brain from the outline of what is not air.

    Parameters
    ----------
    volume : (X, Y, Z) RAS+, any unit of intensity
    spacing_mm : isotropic

    Raises
    ------
    EmptyScanError
    """
    flips = tuple(slice(None, None, -1 if s < 0 else 1) for s in volume.strides)
    volume = volume[flips]  # as it lies in memory
    positive = int(np.count_nonzero(volume > 0))
    if not positive:
        raise EmptyScanError("The scan holds nothing but background.")
    bright = np.float32(percentile_of_greatest(volume, positive, 98))
    head = opened(volume > 0.15 * bright, rounds=2)[flips]
    area = profile(head, 2)
    if not area.any():
        raise EmptyScanError("Nothing in the scan has the size of a head.")
    solid = np.flatnonzero(area > 0.2 * np.percentile(area[area > 0], 90))
    bottom, top = int(solid[0]), int(solid[-1])
    band = head[:, :, max(0, top - round(_HEAD_BAND_MM / spacing_mm)) : top + 1]
    height = max((bottom + top) / 2, top - _TOP_TO_CENTRE_MM / spacing_mm)
    return _middle(profile(band, 0)), _middle(profile(band, 1)), float(height)


def _voxels(mm: float, space: NetworkSpace) -> int:
    return max(1, round(mm / space.spacing_mm))


def _largest_part(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected part; parts may touch at corners."""
    return largest_component(mask, corners=True)


def _centre_of(cerebrum: npt.NDArray[np.bool_], look: _Look) -> tuple[Point, tuple[float, float]]:
    """Where the window belongs, and the first and the last slice with cerebrum.

    Midway in the plane, hung from the crown.
    """
    space = look.space
    x, y, z = (_bounds(cerebrum.sum(tuple(a for a in range(3) if a != axis))) for axis in range(3))
    bounds = [x, y, z]
    low, high = (look.start + place * look.step for place in bounds[space.slice_axis])
    bounds[space.slice_axis] = (low, high)
    crown = bounds[2][1] + _CROWN_MARGIN_MM / space.spacing_mm - space.window[2] / 2
    return (sum(bounds[0]) / 2, sum(bounds[1]) / 2, crown), (low, high)


def _bounds(profile: npt.NDArray[np.int64], rest: float = 0.005) -> tuple[float, float]:
    """First and last position, but for a small rest at both ends."""
    share = np.cumsum(profile) / profile.sum()
    return float(np.searchsorted(share, rest)), float(np.searchsorted(share, 1 - rest))


def _middle(profile: npt.NDArray[np.int64]) -> float:
    return sum(_bounds(profile, 0.02)) / 2
