"""Structures, class numbers and label ids: the one table.

A structure is a word such as `hippocampus`; a backbone numbers its classes in
an order of its own, and every label scheme has its own ids. All of them are
translated here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.errors import InvalidError, UnknownLabelError

BACKGROUND = "background"
SKULL = "skull-and-soft-tissue"

STRUCTURES = (
    BACKGROUND,
    "cerebellum-gm",
    "cerebellum-wm",
    "cerebral-gm",
    "cerebral-wm",
    "thalamus",
    "hippocampus",
    "amygdala",
    "lateral-ventricle",
    "caudate",
    "putamen",
    "pallidum",
    "ventral-dc",
    "csf",
    "brain-stem",
    "inferior-lateral-ventricle",
    "third-ventricle",
    "fourth-ventricle",
)
"""What can be told apart: Karani et al., MICCAI 2018, with the ventricles in four parts."""

VENTRICLES = "ventricles"
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        VENTRICLES: (
            "lateral-ventricle",
            "inferior-lateral-ventricle",
            "third-ventricle",
            "fourth-ventricle",
        )
    }
)
"""Structures that are judged together, and that older backbones know as one class."""

EVALUATED = (
    "thalamus",
    "hippocampus",
    "amygdala",
    "ventricles",
    "caudate",
    "putamen",
    "pallidum",
)

READING_ORDER = (*EVALUATED, *(name for name in STRUCTURES if name not in (*EVALUATED, BACKGROUND)))
"""For people: the evaluated structures first, the parts of a group among the rest."""

PROTOCOLS_DISAGREE = frozenset({"csf"})
"""Some protocols label all of it, some 1 ml: annotated only where a client says so."""

LABEL_SCHEMES = ("freesurfer", "neuromorphometrics", "muse", "normbank")


@dataclass(frozen=True, slots=True)
class FreeSurferIds:
    """The ids answered for one structure; equal when it has no sides."""

    left: int
    right: int

    @property
    def paired(self) -> bool:
        return self.left != self.right


FREESURFER_OUTPUT: Mapping[str, FreeSurferIds] = MappingProxyType(
    {
        "cerebellum-gm": FreeSurferIds(8, 47),
        "cerebellum-wm": FreeSurferIds(7, 46),
        "cerebral-gm": FreeSurferIds(3, 42),
        "cerebral-wm": FreeSurferIds(2, 41),
        "thalamus": FreeSurferIds(10, 49),
        "hippocampus": FreeSurferIds(17, 53),
        "amygdala": FreeSurferIds(18, 54),
        "lateral-ventricle": FreeSurferIds(4, 43),
        "inferior-lateral-ventricle": FreeSurferIds(5, 44),
        "third-ventricle": FreeSurferIds(14, 14),
        "fourth-ventricle": FreeSurferIds(15, 15),
        "caudate": FreeSurferIds(11, 50),
        "putamen": FreeSurferIds(12, 51),
        "pallidum": FreeSurferIds(13, 52),
        "ventral-dc": FreeSurferIds(28, 60),
        "csf": FreeSurferIds(24, 24),
        "brain-stem": FreeSurferIds(16, 16),
    }
)

_FREESURFER_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cerebellum-gm": ("Left-Cerebellum-Cortex", "Right-Cerebellum-Cortex"),
        "cerebellum-wm": ("Left-Cerebellum-White-Matter", "Right-Cerebellum-White-Matter"),
        "cerebral-gm": ("Left-Cerebral-Cortex", "Right-Cerebral-Cortex"),
        "cerebral-wm": ("Left-Cerebral-White-Matter", "Right-Cerebral-White-Matter"),
        "thalamus": ("Left-Thalamus", "Right-Thalamus"),
        "hippocampus": ("Left-Hippocampus", "Right-Hippocampus"),
        "amygdala": ("Left-Amygdala", "Right-Amygdala"),
        "lateral-ventricle": ("Left-Lateral-Ventricle", "Right-Lateral-Ventricle"),
        "inferior-lateral-ventricle": ("Left-Inf-Lat-Vent", "Right-Inf-Lat-Vent"),
        "third-ventricle": ("3rd-Ventricle",),
        "fourth-ventricle": ("4th-Ventricle",),
        "caudate": ("Left-Caudate", "Right-Caudate"),
        "putamen": ("Left-Putamen", "Right-Putamen"),
        "pallidum": ("Left-Pallidum", "Right-Pallidum"),
        "ventral-dc": ("Left-VentralDC", "Right-VentralDC"),
        "csf": ("CSF",),
        "brain-stem": ("Brain-Stem",),
    }
)

_Ids = int | tuple[int, int]  # one id, or the first and last of a run

# aseg (with the ids of older and of manual asegs), aparc with its atlases, and
# wmparc. Accumbens is grey matter; vessels, chiasm, corpus callosum, lesions
# and hypointensities are white matter; the choroid plexus and the cavum
# between the lateral ventricles (72) belong to these; lines, "interior" and
# "undetermined" are nothing.
_FREESURFER: Mapping[str, tuple[_Ids, ...]] = {
    BACKGROUND: (0, (21, 23), 29, 61, 73, 74),
    "cerebellum-gm": (6, 8, 45, 47),
    "cerebellum-wm": (7, 46),
    "cerebral-gm": (
        *(1, 3, 19, 20, 26, (32, 39)),  # left: exterior, cortex, insula, operculum, accumbens
        *(40, 42, 55, 56, 58, (64, 71)),  # right
        *((80, 82), 83, 84),  # grey-matter hypointensities, F1
        *((1000, 1035), (2000, 2035)),  # aparc and aparc.DKTatlas
        *((1100, 1181), (2100, 2181)),  # aparc.a2005s
        *((11100, 11175), (12100, 12175)),  # aparc.a2009s
    ),
    "cerebral-wm": (
        *(2, 25, 30, 41, 57, 62, (77, 79), (85, 89), 99, 192, (250, 255)),
        *((3000, 3035), (4000, 4035), 5001, 5002),  # wmparc
        *((3100, 3181), (4100, 4181), (13100, 13175), (14100, 14175)),
    ),
    "thalamus": (9, 10, 48, 49),
    "hippocampus": (17, 53),
    "amygdala": (18, 54, 96, 97),
    "lateral-ventricle": (4, 31, 43, 63, 72, 136, 163),
    "inferior-lateral-ventricle": (5, 44, 137, 164),
    "third-ventricle": (14,),
    "fourth-ventricle": (15,),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "ventral-dc": (27, 28, 59, 60),
    "csf": (24,),
    "brain-stem": (16,),
    SKULL: (98, 165, 258, 502, (506, 509), 511, 512, (514, 516), 530),
}

_CORTEX_GAPS = {110, 111, 126, 127, 130, 131, 158, 159, 188, 189}
_NEUROMORPHOMETRICS: Mapping[str, tuple[_Ids, ...]] = {
    BACKGROUND: (0,),
    "cerebellum-gm": (38, 39, (71, 73)),
    "cerebellum-wm": (40, 41),
    "cerebral-gm": (
        *(23, 30, 42, 43, 65, 66, 75, 76),
        *sorted(set(range(100, 208)) - _CORTEX_GAPS),
    ),
    "cerebral-wm": (44, 45, 63, 64, 69),
    "thalamus": (59, 60),
    "hippocampus": (47, 48),
    "amygdala": (31, 32),
    "lateral-ventricle": (15, 51, 52),
    "inferior-lateral-ventricle": (49, 50),
    "third-ventricle": (4,),
    "fourth-ventricle": (11,),
    "caudate": (36, 37),
    "putamen": (57, 58),
    "pallidum": (55, 56),
    "ventral-dc": (61, 62),
    "csf": (46,),
    "brain-stem": (35,),
    SKULL: (74,),
}
_MUSE_ON_TOP: Mapping[str, tuple[_Ids, ...]] = {"csf": (1,), "cerebral-wm": ((81, 95),)}


def _by_id(table: Mapping[str, Iterable[_Ids]]) -> dict[int, str]:
    """Turn `structure -> ids` into `id -> structure`."""
    result: dict[int, str] = {}
    for structure, entries in table.items():
        for entry in entries:
            first, last = entry if isinstance(entry, tuple) else (entry, entry)
            result.update(dict.fromkeys(range(first, last + 1), structure))
    return result


@cache
def structures_of(scheme: str) -> Mapping[int, str]:
    """Every id of a label scheme with its structure.

    Parameters
    ----------
    scheme : one of `LABEL_SCHEMES`

    Returns
    -------
    id -> a name of `STRUCTURES` or `skull-and-soft-tissue`, which counts as
    background

    Raises
    ------
    InvalidError
        If there is no such scheme.
    """
    if scheme == "freesurfer":
        table = _by_id(_FREESURFER)
    elif scheme == "neuromorphometrics":
        table = _by_id(_NEUROMORPHOMETRICS)
    elif scheme == "muse":
        table = _by_id(_NEUROMORPHOMETRICS) | _by_id(_MUSE_ON_TOP)
    elif scheme == "normbank":
        ids = FREESURFER_OUTPUT.items()
        table = {0: BACKGROUND} | {
            i: name for name, sides in ids for i in (sides.left, sides.right)
        }
    else:
        raise InvalidError(
            f"The label scheme is none of {', '.join(LABEL_SCHEMES)}.", code="unknown_label_scheme"
        )
    return MappingProxyType(table)


_NEUROMORPHOMETRICS_SIDES = {
    "thalamus": (60, 59),
    "hippocampus": (48, 47),
    "amygdala": (32, 31),
    "lateral-ventricle": (52, 51),
    "caudate": (37, 36),
    "putamen": (58, 57),
    "pallidum": (56, 55),
    "ventral-dc": (62, 61),
}


def sided_ids(scheme: str) -> Mapping[str, tuple[int, int]]:
    """The (left, right) ids of structures that have one on each side, by name."""
    if scheme in ("neuromorphometrics", "muse"):
        return MappingProxyType(_NEUROMORPHOMETRICS_SIDES)
    return MappingProxyType(
        {name: (ids.left, ids.right) for name, ids in FREESURFER_OUTPUT.items() if ids.paired}
    )


_NEUROMORPHOMETRICS_REST = {
    "cerebellum-gm": (39, 38),
    "cerebellum-wm": (41, 40),
    "cerebral-gm": (43, 42),
    "cerebral-wm": (45, 44),
    "inferior-lateral-ventricle": (50, 49),
    "third-ventricle": (4, 4),
    "fourth-ventricle": (11, 11),
    "csf": (46, 46),
    "brain-stem": (35, 35),
}


def ids_of_sides(scheme: str) -> Mapping[str, tuple[int, int]]:
    """One (left, right) pair of ids for each structure, by name; equal where it has no sides.

    Where a scheme divides a structure further, such as the cortex, the pair is that of the
    undivided one.
    """
    if scheme in ("neuromorphometrics", "muse"):
        return MappingProxyType(_NEUROMORPHOMETRICS_SIDES | _NEUROMORPHOMETRICS_REST)
    return MappingProxyType({name: (i.left, i.right) for name, i in FREESURFER_OUTPUT.items()})


def labels_to_classes(
    labels: npt.NDArray[np.integer[Any]], scheme: str, classes: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Translate ids of a label scheme into a backbone's class numbers.

    Parameters
    ----------
    labels : (X, Y, Z) or fewer axes, ids of `scheme`
    scheme : one of `LABEL_SCHEMES`
    classes : structure or group names in the backbone's order, with
        `background`; a structure that is in it neither by its own name nor by
        its group's becomes background

    Returns
    -------
    uint8 of the same shape, positions in `classes`

    Raises
    ------
    UnknownLabelError
        If ids occur that the scheme does not have; `facts["ids"]` counts the
        voxels of each.

    Examples
    --------
    FreeSurfer's left and right hippocampus, and its left putamen:

    >>> labels = np.array([[[17, 53, 12]]])
    >>> labels_to_classes(labels, "freesurfer", ("background", "hippocampus"))
    array([[[1, 1, 0]]], dtype=uint8)
    """
    table = structures_of(scheme)
    numbers = np.zeros(max(table) + 2, np.uint8)  # the last entry stands for every other id
    in_scheme = np.zeros(len(numbers), bool)
    for label, structure in table.items():
        numbers[label] = class_of(structure, classes)
        in_scheme[label] = True
    outside = len(numbers) - 1
    translated, unknown = np.empty_like(labels, np.uint8), []
    pieces: tuple[Any, Any] = (labels[None], translated[None])
    if labels.ndim == 3:
        slowest = int(np.argmax(np.abs(labels.strides)))
        pieces = np.moveaxis(labels, slowest, 0), np.moveaxis(translated, slowest, 0)
    for plane, classes_there in zip(*pieces, strict=True):  # NumPy makes 64-bit indices of each
        index = np.where((plane < 0) | (plane > outside), outside, plane)
        known = in_scheme[index]
        if not known.all():
            unknown.append(plane[~known])
        classes_there[...] = numbers[index]
    if unknown:
        _refuse_unknown(np.concatenate(unknown), scheme)
    return translated


def class_of(structure: str, classes: Sequence[str]) -> int:
    """The class that holds a structure: its own, its group's, else the background's."""
    if structure in classes:
        return classes.index(structure)
    for group, members in GROUPS.items():
        if structure in members and group in classes:
            return classes.index(group)
    return classes.index(BACKGROUND)


def classes_of(name: str, classes: Sequence[str]) -> tuple[int, ...]:
    """Every class that a structure or a group is made of, without the background.

    Parameters
    ----------
    name : of `STRUCTURES` or `GROUPS`
    classes : structure or group names in a backbone's order

    Returns
    -------
    positions in `classes`, ascending; empty where the backbone has none. Of a
    single structure that the backbone knows only within its group: empty,
    since the group is more than it.
    """
    names = (name, *GROUPS.get(name, ()))
    return tuple(
        i
        for i, class_name in enumerate(classes)
        if class_name in names and class_name != BACKGROUND
    )


def members_of(names: Iterable[str]) -> frozenset[str]:
    """Structures, with every group replaced by its members."""
    return frozenset(member for name in names for member in GROUPS.get(name, (name,)))


def _refuse_unknown(labels: npt.NDArray[np.integer[Any]], scheme: str) -> None:
    ids, counts = np.unique(labels, return_counts=True)
    voxels = {int(i): int(n) for i, n in zip(ids, counts, strict=True)}
    shown = ", ".join(str(i) for i in list(voxels)[:8]) + (", …" if len(voxels) > 8 else "")
    raise UnknownLabelError(
        f"The labels hold ids that {scheme} does not have: {shown}.", facts={"ids": voxels}
    )


def present_structures(labels: npt.NDArray[np.integer[Any]], scheme: str) -> tuple[str, ...]:
    """Structures that occur in a label map, background excepted.

    Parameters
    ----------
    labels : (X, Y, Z), ids of `scheme`

    Returns
    -------
    names in the order of `STRUCTURES`

    Raises
    ------
    UnknownLabelError
        If ids occur that the scheme does not have.
    """
    numbers = labels_to_classes(labels, scheme, STRUCTURES)
    planes = [np.bincount(plane.ravel("K"), minlength=len(STRUCTURES)) for plane in numbers]
    voxels = np.sum(planes, axis=0)
    return tuple(
        name for name, n in zip(STRUCTURES, voxels, strict=True) if n and name != BACKGROUND
    )


def answered_ids(name: str) -> FreeSurferIds | None:
    """The ids answered for a class; a group's are its first member's. None for background."""
    return FREESURFER_OUTPUT.get(GROUPS.get(name, (name,))[0])


def label_table(classes: Sequence[str]) -> list[dict[str, Any]]:
    """The ids that a backbone answers, for people: one row per class.

    Parameters
    ----------
    classes : structure or group names in the backbone's order

    Returns
    -------
    rows `{"structure", "left", "right", "names"}`; left equals right where a
    structure has no sides
    """
    rows = []
    for name in classes:
        ids = answered_ids(name)
        if ids is not None:
            names = list(_FREESURFER_NAMES[GROUPS.get(name, (name,))[0]])
            rows.append({"structure": name, "left": ids.left, "right": ids.right, "names": names})
    return rows
