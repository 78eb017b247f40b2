"""Where the brain is, in a head with neck, a stripped brain, or off centre.

A guess from the outline alone is refined by what the network sees on a few
slices of half the resolution. Only where these contradict the guess or each
other is it asked about many slices as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

_COARSE_EVERY_MM = 12.0  # between two slices of a coarse pass
_CROWN_EVERY_MM = 3.0  # and of the pass over where the cerebrum ends
_THOROUGH_EVERY_MM = 6.0  # and of the pass over everything, when the others were misled
_REDUCED_MM = 2.0  # pixels of the coarse passes
_BEYOND_MM = 12.0  # looked at above and below where the window is supposed to lie
_COARSE_PASSES = 3
_SETTLED_MM = 6.0  # a smaller move in the plane ends the search
_CROWN_MM2 = 100.0  # cerebrum in a slice that belongs to it
_TOO_MUCH_MM2 = 1500.0  # and in one that was taken to lie above it
_FOCUS_MARGIN_MM = 12.0  # kept around the cerebrum in the plane
_FOCUS_CUTS_MM = (48.0, 40.0, 32.0, 16.0)  # what may be cut off a slice, largest first
_FOCUS_MULTIPLE = 8  # networks halve a slice three times
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


class Framing(NamedTuple):
    """Where the network has to look.

    Attributes
    ----------
    window : around the brain
    focus : rows and columns of the window's slices that hold the brain; one of
        few sizes
    """

    window: Window
    focus: tuple[slice, slice]


def frame_brain(
    volume: npt.NDArray[np.float32], predictor: SlicePredictor, space: NetworkSpace
) -> Framing:
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
    placement = _search_coarsely(volume, guess, predictor, space)
    if placement is None:
        search_pass = _SearchPass.over(volume, space, _THOROUGH_EVERY_MM)
        placement = search_pass.find(
            volume, search_pass.find(volume, guess, predictor).window, predictor
        )
    return Framing(placement.window, _focus(placement, space))


def _search_coarsely(
    volume: npt.NDArray[np.float32],
    window: Window,
    predictor: SlicePredictor,
    space: NetworkSpace,
) -> _Placement | None:
    """By reduced slices; None where they contradict each other or show too little."""
    for _ in range(_COARSE_PASSES):
        search_pass = _SearchPass.around(volume, window, space)
        try:
            placement = search_pass.find(volume, window, predictor)
        except EmptyScanError:
            return None
        moved = np.abs(np.subtract(placement.window.centre, window.centre))
        moved[space.slice_axis] = 0
        window = placement.window
        if moved.max() * space.spacing_mm < _SETTLED_MM:
            return (
                search_pass.with_crown(volume, placement, predictor)
                if search_pass.contains(placement)
                else None
            )
    return None


def _focus(placement: _Placement, space: NetworkSpace) -> tuple[slice, slice]:
    """The middle of the window's slices, as much of it as the cerebrum needs.

    In the plane of axial slices the window lies in the middle of the cerebrum;
    in others it hangs from the crown, and is needed as a whole.
    """
    shape = [size for axis, size in enumerate(space.window) if axis != space.slice_axis]
    cuts = [_FOCUS_MULTIPLE * int(mm / space.spacing_mm / _FOCUS_MULTIPLE) for mm in _FOCUS_CUTS_MM]
    needed = [size + 2 * _FOCUS_MARGIN_MM / space.spacing_mm for size in placement.extent]
    fits = [
        cut
        for cut in (*cuts, 0)
        if all(size - cut >= least for size, least in zip(shape, needed, strict=True))
    ]
    cut = fits[0] if fits and space.slice_axis == 2 else 0
    rows, columns = (slice(cut // 2, cut // 2 + size - cut) for size in shape)
    return rows, columns


class _Placement(NamedTuple):
    """What a search pass has found.

    Attributes
    ----------
    window : where it belongs
    low, high : voxels along the slice axis, the cerebrum's ends
    extent : voxels, the cerebrum's size in the plane of the slices
    """

    window: Window
    low: float
    high: float
    extent: tuple[float, float]


@dataclass(frozen=True)
class _SearchPass:
    """Some slices of a volume.

    Attributes
    ----------
    height : voxels of the volume along the slice axis
    start, stop, step : which of its slices
    reduced : pixels of a slice that are averaged along each side
    """

    space: NetworkSpace
    height: int
    start: int
    stop: int
    step: int
    reduced: int = 1

    @classmethod
    def over(cls, volume: npt.NDArray[np.float32], space: NetworkSpace, every_mm: float) -> Self:
        """A pass over everything."""
        height, step = volume.shape[space.slice_axis], _voxels(every_mm, space)
        return cls(space, height, min(step, height) // 2, height, step)

    @classmethod
    def around(cls, volume: npt.NDArray[np.float32], window: Window, space: NetworkSpace) -> Self:
        """A coarse pass over where a window lies, and a little beyond."""
        axis, step = space.slice_axis, _voxels(_COARSE_EVERY_MM, space)
        height, beyond = volume.shape[axis], _voxels(_BEYOND_MM, space)
        start = max(window.start[axis] - beyond, 0)
        stop = min(window.start[axis] + window.shape[axis] + beyond, height)
        first = min(start + step // 2, max(stop - 1, 0))
        return cls(space, height, first, stop, step, _reduction(space))

    def with_crown(
        self, volume: npt.NDArray[np.float32], placement: _Placement, predictor: SlicePredictor
    ) -> _Placement | None:
        """The same with the crown's height to a few mm; None where the slices above show more
        of it than they could.
        """
        if self.space.slice_axis != 2:
            return placement
        every, top = _voxels(_CROWN_EVERY_MM, self.space), round(placement.high)
        stop = min(top + self.step + 1, self.height)
        above = replace(self, start=top + every, stop=stop, step=every)
        if above.start >= stop:
            return placement
        areas = above._cerebrum(volume, placement.window, predictor).sum((0, 1))
        shown = areas * self.space.spacing_mm**2
        if top + self.step < self.height and shown[-1] > _TOO_MUCH_MM2:
            return None
        higher = every * int(np.argmin([*(shown >= _CROWN_MM2), False]))
        x, y, z = placement.window.centre
        window = Window(placement.window.shape, (x, y, z + higher))
        return placement._replace(window=window, high=placement.high + higher)

    def contains(self, placement: _Placement) -> bool:
        """Whether what was found ends inside of this pass, or where the volume does."""
        above = placement.high + self.step < self.stop or self.stop == self.height
        below = placement.low - self.step >= self.start or self.start <= self.step
        return above and below

    def find(
        self, volume: npt.NDArray[np.float32], window: Window, predictor: SlicePredictor
    ) -> _Placement:
        """Where the window belongs.

        Parameters
        ----------
        window : where in their planes to look, and what scales them
        """
        cerebrum = self._cerebrum(volume, window, predictor)
        if cerebrum.sum() * self.step * self.space.spacing_mm**3 / 1000 < _LEAST_CEREBRUM_ML:
            raise EmptyScanError(
                "The network sees no brain in the scan that it knows.", code="no_brain"
            )
        return _placed(cerebrum, self)

    def _cerebrum(
        self, volume: npt.NDArray[np.float32], window: Window, predictor: SlicePredictor
    ) -> npt.NDArray[np.bool_]:
        """(X, Y, Z) bool of the looked-at slices: the largest part that is cerebrum."""
        axis = self.space.slice_axis
        index: list[slice] = [slice(None)] * 3
        index[axis] = slice(self.start, self.stop, self.step)
        sparse = volume[tuple(index)]
        shape, centre = list(window.shape), list(window.centre)
        shape[axis] = sparse.shape[axis]
        centre[axis] = shape[axis] // 2
        column = Window((shape[0], shape[1], shape[2]), (centre[0], centre[1], centre[2]))
        unit = np.float32(intensity_unit(window.cut(volume), self.space.percentile))
        slices = np.moveaxis(column.cut(sparse), axis, 0) / unit
        answers = _enlarged(predictor(_reduced(slices, self.reduced)), self.reduced)
        seen = _largest_part(np.moveaxis(is_cerebrum(self.space.classes)[answers], 0, axis))
        return column.paste(seen, sparse.shape)


def is_cerebrum(classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(K,) bool: which classes of a backbone are parts of the cerebrum."""
    return np.array([name not in NOT_CEREBRUM for name in classes])


def _reduction(space: NetworkSpace) -> int:
    """Pixels along each side that make one of a coarse pass's; networks halve slices thrice."""
    factor = max(1, round(_REDUCED_MM / space.spacing_mm))
    sizes = (size for axis, size in enumerate(space.window) if axis != space.slice_axis)
    return factor if all(size % (8 * factor) == 0 for size in sizes) else 1


def _reduced(slices: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Means of square blocks of pixels: N H W to N H/factor W/factor."""
    count, height, width = slices.shape
    blocks = slices.reshape(count, height // factor, factor, width // factor, factor)
    return np.ascontiguousarray(blocks.mean((2, 4), dtype=np.float32))


def _enlarged(classes: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    return classes.repeat(factor, 1).repeat(factor, 2)


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


def _placed(cerebrum: npt.NDArray[np.bool_], search_pass: _SearchPass) -> _Placement:
    """Where the window belongs: midway in the plane, hung from the crown."""
    space = search_pass.space
    x, y, z = (_bounds(cerebrum.sum(tuple(a for a in range(3) if a != axis))) for axis in range(3))
    bounds = [x, y, z]
    low, high = (search_pass.start + place * search_pass.step for place in bounds[space.slice_axis])
    bounds[space.slice_axis] = (low, high)
    crown = bounds[2][1] + _CROWN_MARGIN_MM / space.spacing_mm - space.window[2] / 2
    window = Window(space.window, (sum(bounds[0]) / 2, sum(bounds[1]) / 2, crown))
    rows, columns = (
        end - start + 1 for a, (start, end) in enumerate(bounds) if a != space.slice_axis
    )
    return _Placement(window, low, high, (rows, columns))


def _bounds(profile: npt.NDArray[np.int64], rest: float = 0.005) -> tuple[float, float]:
    """First and last position, but for a small rest at both ends."""
    share = np.cumsum(profile) / profile.sum()
    return float(np.searchsorted(share, rest)), float(np.searchsorted(share, 1 - rest))


def _middle(profile: npt.NDArray[np.int64]) -> float:
    return sum(_bounds(profile, 0.02)) / 2
