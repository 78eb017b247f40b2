"""A scan in the ways in which files go wrong: header, stored order, intensities, extent, pose.

Each is one kind of a fault that users of imaging tools have reported in public. The scan
comes on axes to the right, to the front and up; how labels of the odd file lead back onto
its grid comes with it, so that they can be held against the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

Volume = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]
Edits = Mapping[str, Any]

_nibabel: Any = nibabel  # it has no types for what is used here
_VOXELS_AT = 352
_METRE, _MICRON = 1, 3  # NIfTI's codes of units
_HEAD = 0.1  # of the greatest intensity: more is head


def _as_they_are(labels: Labels) -> Labels:
    return labels


@dataclass(frozen=True, slots=True)
class OddScan:
    """One odd file.

    Attributes
    ----------
    file : NIfTI-1, not compressed
    back : labels on the file's grid -> on the grid of the scan it was made of
    """

    file: bytes
    back: Callable[[Labels], Labels] = _as_they_are


Change = Callable[[Volume, Affine], OddScan]


def _file(
    data: npt.NDArray[Any],
    affine: Affine,
    *,
    sform: int = 1,
    qform: int = 1,
    edits: Edits | None = None,
) -> bytes:
    """A file whose header is edited as no library would write it.

    Parameters
    ----------
    sform, qform : codes of the forms, both of the affine; 0: none
    edits : fields of the header, and what they shall hold; a mapping edits single places
    """
    header = _nibabel.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_zooms(np.sqrt((affine[:3, :3] ** 2).sum(0)))
    header.set_sform(affine, sform)
    header.set_qform(affine, qform)
    for name, value in (edits or {}).items():
        if isinstance(value, Mapping):
            for place, part in value.items():
                header[name][place] = part
        else:
            header[name] = value
    header["vox_offset"], header["magic"] = _VOXELS_AT, b"n+1"
    start = bytes(header.binaryblock).ljust(_VOXELS_AT, b"\0")
    return start + np.asarray(data).tobytes(order="F")


# Header


def _no_form(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data, affine, sform=0, qform=0))


def _no_form_las(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data[::-1], affine, sform=0, qform=0), lambda labels: labels[::-1])


def _qform_of(affine: Affine) -> Edits:
    """The fields of another affine's qform."""
    other = _nibabel.Nifti1Header()
    other.set_qform(affine, 1)
    fields = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    return {"pixdim": {0: other["pixdim"][0]}, **{name: other[name] for name in fields}}


def _forms_of_unlike_handedness(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data, affine, edits=_qform_of(affine @ np.diag([-1.0, 1, 1, 1]))))


def _forms_turned(data: Volume, affine: Affine) -> OddScan:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    return OddScan(_file(data, affine, edits=_qform_of(turn @ affine)))


def _pixdim_half(data: Volume, affine: Affine) -> OddScan:
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(0)) / 2
    return OddScan(_file(data, affine, qform=0, edits={"pixdim": dict(enumerate(sizes, 1))}))


def _identity_sform(data: Volume, affine: Affine) -> OddScan:
    """Voxels of 1.5 mm, of which the affine says 1."""
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(0))
    coarse = ndimage.zoom(data, sizes / 1.5, order=1)
    scale = np.array(coarse.shape) / data.shape

    def back(labels: Labels) -> Labels:
        return np.asarray(ndimage.affine_transform(labels, scale, output_shape=data.shape, order=0))

    spacing = dict.fromkeys((1, 2, 3), 1.5)
    return OddScan(_file(coarse, np.eye(4), qform=0, edits={"pixdim": spacing}), back)


def _quaternion_too_long(data: Volume, affine: Affine) -> OddScan:
    """By a rounding error, as those of old converters are."""
    far = np.array([0, data.shape[1] - 1, data.shape[2] - 1, 1.0])
    flipped = affine @ np.diag([1.0, -1, -1, 1])
    flipped[:3, 3] = (affine @ far)[:3]
    long = {"quatern_b": np.float32(1 + 4e-7), "quatern_c": 0.0, "quatern_d": 0.0}
    stored = _file(data[:, ::-1, ::-1], flipped, sform=0, edits=long)
    return OddScan(stored, lambda labels: labels[:, ::-1, ::-1])


def _qfac_zero(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data, affine, sform=0, edits={"pixdim": {0: 0.0}}))


def _sform_of_zeros(data: Volume, affine: Affine) -> OddScan:
    zeros = np.zeros(4, np.float32)
    return OddScan(_file(data, affine, edits=dict.fromkeys(("srow_x", "srow_y", "srow_z"), zeros)))


def _metres(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data, np.diag([1e-3] * 3 + [1.0]) @ affine, edits={"xyzt_units": _METRE}))


def _microns(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data, np.diag([1e3] * 3 + [1.0]) @ affine, edits={"xyzt_units": _MICRON}))


def _negative_pixdim(data: Volume, affine: Affine) -> OddScan:
    size = float(np.linalg.norm(affine[:3, 0]))
    return OddScan(_file(data, affine, sform=0, edits={"pixdim": {1: -size}}))


# Order in which voxels are stored


def _identity_on_lia(data: Volume, affine: Affine) -> OddScan:
    """Axes to the left, down and to the front, saved with the identity."""
    stored = data[::-1].transpose(0, 2, 1)[:, ::-1]
    return OddScan(
        _file(stored, np.eye(4)), lambda labels: labels[:, ::-1].transpose(0, 2, 1)[::-1]
    )


def _upside_down(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data[:, :, ::-1], affine), lambda labels: labels[:, :, ::-1])


# Intensities


def _inside(data: Volume) -> npt.NDArray[np.bool_]:
    """The head with all that it encloses, and nothing that lies apart from it."""
    closed = ndimage.binary_closing(data > _HEAD * data.max(), iterations=3)
    parts, _ = ndimage.label(closed)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(parts == sizes.argmax()))


def _zscored_in_the_head(data: Volume, affine: Affine) -> OddScan:
    head = _inside(data)
    scores = np.where(head, (data - data[head].mean()) / data[head].std(), 0)
    return OddScan(_file(scores.astype(np.float32), affine))


def _zscored(data: Volume, affine: Affine) -> OddScan:
    scores = (data - data.mean()) / data.std()
    return OddScan(_file(scores.astype(np.float32), affine))


def _offset(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file((data / data.max() * 1000 + 500).astype(np.float32), affine))


def _hounsfield_offset(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file((data / data.max() * 1000 - 1024).astype(np.float32), affine))


def _salt_and_pepper(data: Volume, affine: Affine) -> OddScan:
    """A quotient image: where there is no signal it takes every value."""
    noise = np.random.default_rng(0).uniform(0, 1000, data.shape)
    quotient = np.where(_inside(data), data / data.max() * 1000, noise)
    return OddScan(_file(quotient.astype(np.float32), affine))


def _signed_quotient(data: Volume, affine: Affine) -> OddScan:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, data.shape)
    quotient = np.where(_inside(data), data / data.max() - 0.5, noise)
    return OddScan(_file(quotient.astype(np.float32), affine))


def _wrapped_air(data: Volume, affine: Affine) -> OddScan:
    """Air below 0 that was stored without a sign."""
    drawn = np.random.default_rng(0).random(data.shape) < 0.3
    wrapped = np.where(drawn & ~_inside(data), 32767, data / data.max() * 1000)
    return OddScan(_file(wrapped.astype(np.float32), affine))


def _air_not_a_number(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(np.where(_inside(data), data, np.nan).astype(np.float32), affine))


def _one_huge_voxel(data: Volume, affine: Affine) -> OddScan:
    huge = data.copy()
    huge[1, 1, 1] = 1e6 * data.max()
    return OddScan(_file(huge, affine))


def _inverted(data: Volume, affine: Affine) -> OddScan:
    return OddScan(_file(data.max() - data, affine))


# Extent and pose


def _cut(data: Volume, affine: Affine, cut: tuple[slice, slice, slice]) -> OddScan:
    first = np.array([part.start or 0 for part in cut])
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first

    def back(labels: Labels) -> Labels:
        whole = np.zeros(data.shape, labels.dtype)
        whole[cut] = labels
        return whole

    return OddScan(_file(data[cut], moved), back)


def _head_box(data: Volume) -> list[tuple[int, int]]:
    """First and last index of the head along each axis."""
    found = np.argwhere(_inside(data))
    return [(int(low), int(high)) for low, high in zip(found.min(0), found.max(0), strict=True)]


def _right_half(data: Volume, affine: Affine) -> OddScan:
    low, high = _head_box(data)[0]
    return _cut(data, affine, (slice((low + high) // 2, None), slice(None), slice(None)))


def _left_half_in_air(data: Volume, affine: Affine) -> OddScan:
    low, high = _head_box(data)[0]
    half = data.copy()
    half[(low + high) // 2 :] = 0
    return OddScan(_file(half, affine))


def _upper_slab(data: Volume, affine: Affine) -> OddScan:
    """The 80 mm below the crown."""
    top = _head_box(data)[2][1] + 1
    thick = round(80 / float(np.linalg.norm(affine[:3, 2])))
    return _cut(data, affine, (slice(None), slice(None), slice(max(top - thick, 0), top)))


def _thick_slices(data: Volume, affine: Affine) -> OddScan:
    """Axial, of 5 mm."""
    every = max(round(5 / float(np.linalg.norm(affine[:3, 2]))), 1)
    first = every // 2
    thick = ndimage.uniform_filter1d(data, every, axis=2)[:, :, first::every]
    moved = affine @ np.diag([1.0, 1, every, 1])
    moved[:3, 3] += affine[:3, 2] * first

    def back(labels: Labels) -> Labels:
        nearest = (np.arange(data.shape[2]) // every).clip(0, labels.shape[2] - 1)
        return labels[:, :, nearest]

    return OddScan(_file(thick, moved), back)


def _said_to_be_small(data: Volume, affine: Affine) -> OddScan:
    """A head of 55 % of its size, by its header."""
    return OddScan(_file(data, affine @ np.diag([0.55, 0.55, 0.55, 1])))


def _turned(axis: str, angle: float, *, honest: bool = False) -> Change:
    """About the volume's middle; honest: with an affine that says so."""

    def change(data: Volume, affine: Affine) -> OddScan:
        matrix = Rotation.from_euler(axis, angle, degrees=True).as_matrix()
        middle = (np.array(data.shape) - 1) / 2
        there = ndimage.affine_transform(data, matrix, middle - matrix @ middle, order=1)

        def back(labels: Labels) -> Labels:
            start = middle - matrix.T @ middle
            return np.asarray(ndimage.affine_transform(labels, matrix.T, start, order=0))

        said = affine.copy()
        if honest:
            said[:3, :3] = affine[:3, :3] @ matrix
            said[:3, 3] = (affine @ np.append(middle, 1))[:3] - said[:3, :3] @ middle
        return OddScan(_file(there, said), back)

    return change


ODD_SCANS: Mapping[str, Change] = MappingProxyType(
    {
        "as it is": lambda data, affine: OddScan(_file(data, affine)),
        "no form, stored RAS": _no_form,
        "no form, stored LAS": _no_form_las,
        "forms of unlike handedness": _forms_of_unlike_handedness,
        "forms turned by 20 degrees": _forms_turned,
        "pixdim half of the sform's": _pixdim_half,
        "identity sform, 1.5 mm": _identity_sform,
        "quaternion too long by 4e-7": _quaternion_too_long,
        "qfac 0": _qfac_zero,
        "sform of zeros": _sform_of_zeros,
        "metres": _metres,
        "microns": _microns,
        "negative pixdim": _negative_pixdim,
        "identity on LIA": _identity_on_lia,
        "upside down": _upside_down,
        "z-scored in the head": _zscored_in_the_head,
        "z-scored": _zscored,
        "offset 500": _offset,
        "offset -1024": _hounsfield_offset,
        "salt and pepper": _salt_and_pepper,
        "signed quotient": _signed_quotient,
        "wrapped air": _wrapped_air,
        "air not a number": _air_not_a_number,
        "one huge voxel": _one_huge_voxel,
        "inverted": _inverted,
        "right half": _right_half,
        "left half in air": _left_half_in_air,
        "upper 80 mm": _upper_slab,
        "slices of 5 mm": _thick_slices,
        "said to be small": _said_to_be_small,
        "oblique by 44 degrees": _turned("x", 44, honest=True),
        "turned by 45 degrees about z": _turned("z", 45),
        "turned by 45 degrees about x": _turned("x", 45),
        "turned by 45 degrees about y": _turned("y", 45),
    }
)
"""Name of a fault -> what makes it of a scan on axes to the right, to the front and up."""
