"""Masks: opening, connected components and boxes, made for whole volumes.

What `scipy.ndimage` does for any structuring element and any number of
dimensions is done here for the six neighbours of a voxel, many times faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
_WORD_BITS = 64


def relabelled(
    volume: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """`table[volume]`, which NumPy would compute by way of 64-bit indices.

    Parameters
    ----------
    volume : (X, Y, Z)
    table : (256,)

    Returns
    -------
    (X, Y, Z), C-contiguous, read-only
    """
    translated = volume.tobytes().translate(table.tobytes())
    return np.frombuffer(translated, np.uint8).reshape(volume.shape)


def box_of(volume: npt.NDArray[Any]) -> Box:
    """The least box that holds all that is not 0; empty slices where nothing is.

    Parameters
    ----------
    volume : (X, Y, Z)
    """
    box = [slice(0, n) for n in volume.shape]
    for axis in np.argsort(np.abs(volume.strides))[::-1]:  # what is cut first costs no more
        others = tuple(a for a in range(3) if a != axis)
        busy = np.flatnonzero(volume[tuple(box)].any(others))
        box[axis] = slice(int(busy[0]), int(busy[-1]) + 1) if busy.size else slice(0, 0)
    x, y, z = box
    return x, y, z


def counted(volume: npt.NDArray[np.integer[Any]], below: int) -> npt.NDArray[np.int64]:
    """How often each number from 0 to `below` - 1 occurs, (below,).

    As `numpy.bincount`, which would hold every voxel as a 64-bit number, but plane by plane.

    Parameters
    ----------
    volume : (X, Y, Z), not negative, in any order of memory
    """
    counts = np.zeros(below, np.int64)
    for plane in np.moveaxis(volume, int(np.argmax(np.abs(volume.strides))), 0):
        counts += np.bincount(plane.ravel("K"), minlength=below)[:below]
    return counts


def middle_of(mask: Mask) -> npt.NDArray[np.float64]:
    """Mean place of a mask's voxels, (3,); NaN where it has none.

    Parameters
    ----------
    mask : (X, Y, Z), in any order of memory
    """
    count = np.count_nonzero(mask)
    if not count:
        return np.full(3, np.nan)
    return np.array([profile(mask, a) @ np.arange(n) / count for a, n in enumerate(mask.shape)])


def profile(mask: Mask, axis: int) -> npt.NDArray[np.int64]:
    """How many voxels of a mask lie in each plane across an axis.

    Parameters
    ----------
    mask : (X, Y, Z), in any order of memory
    """
    fastest, middle, slowest = np.argsort(np.abs(mask.strides))
    if axis != fastest:
        return np.array([np.count_nonzero(plane) for plane in np.moveaxis(mask, axis, 0)])
    lines = mask.sum(middle, dtype=np.uint16)
    return np.asarray(lines.sum(slowest - (slowest > middle), dtype=np.int64))


def opened(mask: Mask, rounds: int) -> Mask:
    """`scipy.ndimage.binary_opening` with as many iterations.

    Parameters
    ----------
    mask : (X, Y, Z), in any order of memory; left alone

    Returns
    -------
    (X, Y, Z), in the same order of memory
    """
    axes = np.argsort(np.abs(mask.strides))[::-1]
    mask, length = mask.transpose(axes), mask.shape[axes[2]]
    packed = np.packbits(mask, axis=2, bitorder="little")
    words = np.zeros((*mask.shape[:2], -(-length // _WORD_BITS)), "<u8")
    words.view(np.uint8)[:, :, : packed.shape[2]] = packed
    for _ in range(rounds):
        words = _with_neighbours(words, np.bitwise_and)
    for _ in range(rounds):
        words = _with_neighbours(words, np.bitwise_or)
    bits = np.unpackbits(words.view(np.uint8), axis=2, count=length, bitorder="little")
    return bits.view(np.bool_).transpose(np.argsort(axes))


def _with_neighbours(words: npt.NDArray[np.uint64], combine: Any) -> npt.NDArray[np.uint64]:
    """Each voxel and its six neighbours combined; 0 lies around the volume."""
    before, after = words << 1, words >> 1
    before[:, :, 1:] |= words[:, :, :-1] >> (_WORD_BITS - 1)
    after[:, :, :-1] |= words[:, :, 1:] << (_WORD_BITS - 1)
    combined: npt.NDArray[np.uint64] = combine(
        combine(before, after, out=before), words, out=before
    )
    nothing = np.zeros_like(words[:1]), np.zeros_like(words[:, :1])
    for axis, beyond in enumerate(nothing):
        ahead, behind = (slice(None),) * axis, (slice(None),) * (1 - axis)
        inner = (*ahead, slice(1, None), *behind), (*ahead, slice(None, -1), *behind)
        outer = (*ahead, slice(0, 1), *behind), (*ahead, slice(-1, None), *behind)
        for here, there, edge in zip(inner, inner[::-1], outer, strict=True):
            combine(combined[here], words[there], out=combined[here])
            combine(combined[edge], beyond, out=combined[edge])
    return combined


def largest_component(mask: Mask, *, corners: bool = False) -> Mask:
    """The connected component of most voxels; the first of several such.

    Parameters
    ----------
    mask : (X, Y, Z); left alone
    corners : voxels that share no more than an edge or a corner are connected too
    """
    padded = np.pad(mask, 1)
    starts, ends, numbers = _components(padded, corners=corners)
    if len(numbers):
        sizes = np.bincount(numbers, ends - starts)
        _clear(padded, starts, ends, numbers != np.argmax(sizes))
    return padded[1:-1, 1:-1, 1:-1]


def open_to_outside(mask: Mask) -> Mask:
    """What of a mask is connected with the volume's faces.

    Parameters
    ----------
    mask : (X, Y, Z); left alone
    """
    padded = np.pad(mask, 1, constant_values=True)
    starts, ends, numbers = _components(padded)
    _clear(padded, starts, ends, numbers != numbers[0])
    return padded[1:-1, 1:-1, 1:-1]


def voxels_by_component(mask: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """The voxels of a mask, and which connected component each belongs to.

    Parameters
    ----------
    mask : (X, Y, Z); left alone

    Returns
    -------
    at : (V,), ascending places in the flattened mask
    numbers : (V,), components from 0 on
    """
    padded = np.pad(mask, 1)
    starts, ends, numbers = _components(padded)
    places = np.subtract(np.unravel_index(starts, padded.shape), 1)
    first = np.ravel_multi_index(tuple(places), mask.shape)
    return _voxels(first, ends - starts), np.repeat(numbers, ends - starts)


def _components(
    padded: Mask, *, corners: bool = False
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Connected components of a mask by the runs of its flattened voxels.

    Parameters
    ----------
    padded : (X, Y, Z), C-contiguous, its outermost voxels all alike, so that
        what follows one another where a line or a plane ends is connected

    Returns
    -------
    starts, ends : (R,), each run's first voxel and the one behind its last
    numbers : (R,), its component
    """
    flat = padded.ravel()
    steps = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    steps = np.concatenate([[0] * int(flat[0]), steps, [flat.size] * int(flat[-1])]).astype(np.intp)
    starts, ends = steps[::2], steps[1::2]
    line, plane, reach = padded.shape[2], padded.shape[1] * padded.shape[2], int(corners)
    pairs = []
    for stride in (line, plane, plane - line, plane + line)[: 4 if corners else 2]:
        first = np.searchsorted(ends, starts + (stride - reach), "right")
        count = np.searchsorted(starts, ends + (stride + reach), "left") - first
        before = np.cumsum(count) - count
        touched = np.arange(count.sum()) + np.repeat(first - before, count)
        pairs.append((np.repeat(np.arange(len(starts)), count), touched))
    here, there = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(here), bool), (here, there)), (len(starts),) * 2)
    return starts, ends, connected_components(graph, directed=False)[1]


def _clear(
    mask: Mask, starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp], which: Mask
) -> None:
    """Set the voxels of some runs to False."""
    mask.ravel()[_voxels(starts[which], (ends - starts)[which])] = False


def _voxels(starts: npt.NDArray[np.intp], sizes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The voxels of runs, one after the other."""
    before = np.cumsum(sizes) - sizes
    return np.asarray(np.arange(sizes.sum()) + np.repeat(starts - before, sizes))
