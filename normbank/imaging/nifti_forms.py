"""Where a NIfTI header says that its voxels lie, and what it cannot say.

The one place that decides between sform, qform, voxel sizes and units. What is taken, and
which flag says so:

- both forms agree, or there is one alone: the sform, or that one
- forms of unlike handedness: the sform; `forms_disagree`, severe
- forms turned against each other, more than 5 mm at a corner: the sform; the same, warning
- the sform is singular or not finite, the qform sound: the qform; the same, info
- no form at all (codes 0): the voxel sizes, axes as if LAS; `orientation_unknown`, severe
- neither form sound: refused as `bad_affine`, with both reasons
- sizes of the affine and of pixdim more than 2 % apart: the affine; `size_doubtful`, warning,
  above 20 % severe
- a negative size in pixdim: its absolute value; `size_doubtful`, warning, where it matters
- a quaternion longer than 1 by rounding: normalised; qfac 0: taken as 1; so the standard says
- metres or microns: converted where a head then has its size (`units`, info), taken for mm
  where it has its size only so (`units`, warning)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from normbank.entities import Flag
from normbank.entities.flags import info, severe, warning
from normbank.errors import GeometryError
from normbank.imaging.scan import sizes_in_words, spacing_of

Affine = npt.NDArray[np.float64]

MIN_UPRIGHTNESS = 0.05  # |det| over the product of the spacings; 1: axes at right angles
_HEAD_MM = (20.0, 1000.0)  # least and greatest extent that a volume of a head may have
_QUATERNION_SLACK = 0.01  # how much longer than 1 a rounded one may be
_APART_MM = 5.0  # of the same corner by both forms, about the same centre
_SIZES_DIFFER = 0.02
_SIZES_CONTRADICT = 0.2
_UNITS = {1: ("metres", 1000.0), 3: ("microns", 0.001)}


@dataclass(frozen=True, slots=True)
class Placed:
    """A grid's place, and the doubts about it.

    Attributes
    ----------
    affine : (4, 4), voxel to RAS+ mm
    """

    affine: Affine
    flags: tuple[Flag, ...]


def place(raw: Any, shape: tuple[int, int, int]) -> Placed:
    """Decide where a volume lies.

    Parameters
    ----------
    raw : nibabel's NIfTI header
    shape : voxels (X, Y, Z)

    Raises
    ------
    GeometryError
        `bad_affine`, when nothing in the header can be used; says why.
    """
    sizes = np.asarray(raw["pixdim"][1:4], float)
    sform = _Form.read("sform", int(raw["sform_code"]), lambda: _sform(raw), shape)
    qform = _Form.read("qform", int(raw["qform_code"]), lambda: _qform(raw), shape)
    affine, flags = _choose(sform, qform, raw, sizes)
    if qform.sound and affine is qform.affine and (sizes < 0).any():
        flags.append(
            warning(
                "size_doubtful",
                f"A voxel size is negative: {sizes_in_words(sizes)} mm; the sign was dropped.",
            )
        )
    if sform.sound and qform.sound:
        flags += _disagreement(sform.affine, qform.affine, shape)
    flags += _contradiction(affine, np.abs(sizes))
    scale, said = _unit(int(raw["xyzt_units"]) & 7, affine, shape)
    if scale != 1:
        affine = np.diag([scale, scale, scale, 1.0]) @ affine
    return Placed(affine, (*said, *flags))


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the two affines that a header may hold.

    Attributes
    ----------
    given : whether its code says that it means something
    fault : why it cannot be used; empty for none
    """

    name: str
    given: bool
    affine: Affine
    fault: str

    @property
    def sound(self) -> bool:
        return self.given and not self.fault

    @classmethod
    def read(
        cls, name: str, code: int, read: Callable[[], Affine], shape: tuple[int, int, int]
    ) -> _Form:
        if code <= 0:
            return cls(name, False, np.eye(4), "")
        try:
            affine = read()
        except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
            return cls(name, True, np.eye(4), str(error).rstrip(".") or "it makes no sense")
        return cls(name, True, affine, fault_of(affine, shape))


def fault_of(affine: Affine, shape: tuple[int, int, int]) -> str:
    """Why no volume can lie as an affine says, in any unit; empty where one can."""
    if not np.isfinite(affine).all():
        return "it holds values that are not finite"
    spacing = spacing_of(affine)
    if not all(spacing):
        return "one of its axes has no length"
    if abs(np.linalg.det(affine[:3, :3])) < MIN_UPRIGHTNESS * math.prod(spacing):
        return "its axes lie in one plane"
    return ""


def _sform(raw: Any) -> Affine:
    return np.asarray(raw.get_sform(), np.float64)


def _qform(raw: Any) -> Affine:
    """As nibabel reads it, once what the standard allows has been put right."""
    header = raw.copy()
    sizes = np.asarray(header["pixdim"][1:4], float)
    if not (np.isfinite(sizes).all() and sizes.all()):
        raise ValueError(f"its voxel sizes are {sizes_in_words(sizes)} mm")
    header["pixdim"][1:4] = np.abs(sizes)
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    vector = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    length = float((vector**2).sum())
    if not length <= 1 + _QUATERNION_SLACK:
        raise ValueError(f"its quaternion has the length {math.sqrt(length):.3g}, not 1")
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError):
        for axis, value in zip("bcd", vector / math.sqrt(length), strict=True):
            header[f"quatern_{axis}"] = np.nextafter(np.float32(value), np.float32(0))
        return np.asarray(header.get_qform(), np.float64)


def _choose(
    sform: _Form, qform: _Form, raw: Any, sizes: npt.NDArray[np.float64]
) -> tuple[Affine, list[Flag]]:
    if sform.sound:
        return sform.affine, []
    if qform.sound:
        if not sform.given:
            return qform.affine, []
        said = f"The sform cannot be used ({sform.fault}); the qform was taken."
        return qform.affine, [info("forms_disagree", said)]
    if sform.given or qform.given:
        faults = [f"the {form.name}: {form.fault}" for form in (sform, qform) if form.given]
        raise GeometryError(
            f"The header gives no usable affine; {'; '.join(faults)}.", code="bad_affine"
        )
    if not (np.isfinite(sizes).all() and sizes.all()):
        said = f"and its voxel sizes are {sizes_in_words(sizes)} mm."
        raise GeometryError(f"The header has no sform and no qform, {said}", code="bad_affine")
    header = raw.copy()
    header["pixdim"][1:4] = np.abs(sizes)
    said = (
        "The header has no sform and no qform: nobody can say which side is left. "
        "The axes were taken to run to the left, to the front and up."
    )
    return np.asarray(header.get_base_affine(), np.float64), [severe("orientation_unknown", said)]


def _disagreement(first: Affine, second: Affine, shape: tuple[int, int, int]) -> list[Flag]:
    """What two sound forms say differently."""
    if np.linalg.det(first[:3, :3]) * np.linalg.det(second[:3, :3]) < 0:
        return [
            severe(
                "forms_disagree",
                "The sform and the qform disagree about which side is left; the sform was taken.",
            )
        ]
    corners = (np.array(list(np.ndindex(2, 2, 2))) - 0.5) * shape
    apart = np.linalg.norm(corners @ (first - second)[:3, :3].T, axis=1).max()
    if apart <= _APART_MM:
        return []
    said = f"The sform and the qform lie {apart:.0f} mm apart at a corner; the sform was taken."
    return [warning("forms_disagree", said)]


def _contradiction(affine: Affine, sizes: npt.NDArray[np.float64]) -> list[Flag]:
    """Voxel sizes by the affine against those that the header names."""
    if not (np.isfinite(sizes).all() and sizes.all()):
        return []
    taken = np.array(spacing_of(affine))
    apart = float(np.abs(taken / sizes - 1).max())
    if apart <= _SIZES_DIFFER:
        return []
    said = (
        f"A voxel measures {sizes_in_words(taken)} mm by the affine and "
        f"{sizes_in_words(sizes)} mm by pixdim; the affine was taken."
    )
    grave = apart > _SIZES_CONTRADICT
    return [(severe if grave else warning)("size_doubtful", said)]


def _unit(code: int, affine: Affine, shape: tuple[int, int, int]) -> tuple[float, list[Flag]]:
    """What a header's numbers are to be multiplied with to give mm."""
    if code not in _UNITS:
        return 1.0, []
    unit, scale = _UNITS[code]
    extent = np.array(spacing_of(affine)) * shape
    low, high = _HEAD_MM
    if low <= extent.min() * scale and extent.max() * scale <= high:
        return scale, [
            info("units", f"The header's lengths are {unit}; they were converted to mm.")
        ]
    if low <= extent.min() and extent.max() <= high:
        said = f"The header's unit is {unit}, in which no head has this size; mm were taken."
        return 1.0, [warning("units", said)]
    return scale, []
