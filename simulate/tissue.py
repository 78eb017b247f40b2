"""Which label ids look alike in MR, and how bright they are.

The ids are FreeSurfer's, and those of whole-head label maps: 136, 137, 163 and
164 choroid plexus, 502 to 530 the head outside the brain (SAMSEG/CHARM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]
Codes = npt.NDArray[np.uint8]

TISSUE_IDS: Mapping[str, tuple[int, ...]] = {
    "air": (0,),
    "cerebral-wm": (2, 41, 85, 251, 252, 253, 254, 255),
    "cerebral-gm": (3, 42),
    "cerebellum-wm": (7, 46),
    "cerebellum-gm": (8, 47),
    "ventricle": (4, 5, 14, 15, 43, 44, 72),
    "choroid-plexus": (31, 63, 136, 137, 163, 164),
    "csf": (24,),
    "thalamus": (10, 49),
    "caudate": (11, 50, 26, 58),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "ventral-dc": (28, 60),
    "brain-stem": (16,),
    "lesion": (25, 57, 77),
    "vessel": (30, 62, 502, 514),
    "eye": (506,),
    "soft-tissue": (507,),
    "muscle": (508,),
    "mucosa": (509,),
    "skin": (511,),
    "spinal-cord": (512,),
    "bone": (515,),
    "marrow": (516,),
    "optic-nerve": (530,),
}
TISSUES = tuple(TISSUE_IDS)

_HEAD_IDS = range(502, 531)
_OUTSIDE_BRAIN = ("air", "csf")


@dataclass(frozen=True, slots=True)
class Brightness:
    """One tissue in one contrast, in units of the brightest brain tissue.

    Attributes
    ----------
    mean : of the tissue
    spread : standard deviation of its slow variation from place to place
    """

    mean: float
    spread: float


Contrast = Mapping[str, Brightness]

# Means (T1w, T2w, PD, FLAIR) and the spread. Fat is bright in all four (turbo
# spin echoes), the pallidum's iron makes it dark where T2 counts, and skin and
# soft tissue vary widely because each holds both fat and muscle.
_ROWS: Mapping[str, tuple[float, float, float, float, float]] = {
    "air": (0.00, 0.00, 0.00, 0.00, 0.000),
    "cerebral-wm": (1.00, 0.36, 0.70, 0.60, 0.025),
    "cerebral-gm": (0.66, 0.54, 0.88, 0.80, 0.040),
    "cerebellum-wm": (0.95, 0.35, 0.70, 0.58, 0.030),
    "cerebellum-gm": (0.65, 0.51, 0.86, 0.76, 0.040),
    "ventricle": (0.18, 1.00, 0.96, 0.12, 0.015),
    "choroid-plexus": (0.42, 0.78, 0.93, 0.55, 0.060),
    "csf": (0.22, 0.95, 0.94, 0.16, 0.060),
    "thalamus": (0.82, 0.45, 0.80, 0.70, 0.035),
    "caudate": (0.69, 0.49, 0.85, 0.76, 0.025),
    "putamen": (0.75, 0.44, 0.82, 0.73, 0.025),
    "pallidum": (0.91, 0.29, 0.70, 0.60, 0.030),
    "hippocampus": (0.67, 0.55, 0.88, 0.84, 0.035),
    "amygdala": (0.65, 0.56, 0.88, 0.84, 0.030),
    "ventral-dc": (0.87, 0.39, 0.75, 0.65, 0.045),
    "brain-stem": (0.90, 0.40, 0.74, 0.62, 0.040),
    "lesion": (0.76, 0.62, 0.90, 1.00, 0.060),
    "vessel": (0.80, 0.16, 0.40, 0.30, 0.150),
    "eye": (0.20, 0.95, 0.92, 0.15, 0.030),
    "soft-tissue": (0.55, 0.40, 0.62, 0.50, 0.160),
    "muscle": (0.52, 0.24, 0.60, 0.42, 0.050),
    "mucosa": (0.50, 0.75, 0.85, 0.70, 0.120),
    "skin": (0.95, 0.55, 0.75, 0.62, 0.140),
    "spinal-cord": (0.88, 0.42, 0.76, 0.62, 0.040),
    "bone": (0.10, 0.05, 0.12, 0.06, 0.035),
    "marrow": (0.70, 0.38, 0.55, 0.42, 0.120),
    "optic-nerve": (0.75, 0.42, 0.75, 0.60, 0.040),
}

CONTRASTS: Mapping[str, Contrast] = {
    name: {tissue: Brightness(row[column], row[4]) for tissue, row in _ROWS.items()}
    for column, name in enumerate(("t1w", "t2w", "pd", "flair"))
}


IDS = tuple(sorted(label for ids in TISSUE_IDS.values() for label in ids))
"""Every id that has a tissue; the codes of `encode` are positions in it."""

_UNKNOWN = 255


def encode(labels: Labels) -> Codes:
    """Small numbers in place of ids, so that all that is asked of them is a look-up.

    Parameters
    ----------
    labels : (X, Y, Z) integers, raw ids

    Returns
    -------
    (X, Y, Z) uint8, positions in `IDS`; air stays 0

    Raises
    ------
    ValueError
        If an id has no tissue; the message lists such ids.
    """
    table = np.full(IDS[-1] + 1, _UNKNOWN, np.uint8)
    table[list(IDS)] = np.arange(len(IDS))
    inside = labels.size and labels.min() >= 0 and labels.max() <= IDS[-1]
    codes = table[labels] if inside else None
    if codes is None or (codes == _UNKNOWN).any():
        missing = sorted({int(i) for i in np.unique(labels)} - set(IDS))
        raise ValueError(f"label ids without a tissue: {missing}")
    return codes


def look_up(table: npt.NDArray[np.uint8], codes: Codes) -> npt.NDArray[np.uint8]:
    """`table[codes]` of a table with an entry for each of `IDS`.

    Bytes are translated several times faster than NumPy takes elements.
    """
    every = np.zeros(256, np.uint8)
    every[: len(table)] = table
    translated = bytearray(np.ascontiguousarray(codes)).translate(every.tobytes())
    return np.frombuffer(translated, np.uint8).reshape(codes.shape)


def tissue_table() -> npt.NDArray[np.uint8]:
    """(len(IDS),) uint8: the index into `TISSUES` of each code."""
    of = {label: index for index, ids in enumerate(TISSUE_IDS.values()) for label in ids}
    return np.array([of[label] for label in IDS], np.uint8)


def brain_table() -> npt.NDArray[np.uint8]:
    """(len(IDS),) uint8: whether each code is brain tissue or a ventricle, 0 or 1."""
    outside = {label for name in _OUTSIDE_BRAIN for label in TISSUE_IDS[name]}
    return np.array([i not in outside and i < min(_HEAD_IDS) for i in IDS], np.uint8)


def tissue_of(labels: Labels) -> npt.NDArray[np.uint8]:
    """(X, Y, Z) uint8, index into `TISSUES`; raises as `encode` does."""
    return look_up(tissue_table(), encode(labels))


def brain_of(codes: Codes) -> npt.NDArray[np.bool_]:
    """(X, Y, Z) bool: brain tissue and ventricles; no CSF around it, no head."""
    return look_up(brain_table(), codes).view(bool)


def brain_mask(labels: Labels) -> npt.NDArray[np.bool_]:
    """`brain_of` raw ids; raises as `encode` does."""
    return brain_of(encode(labels))
