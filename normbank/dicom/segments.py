"""Which structure a segment of a DICOM SEG is, and which id it has in a label scheme."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.sr.coding import Code

from normbank.anatomy import STRUCTURES, ids_of_sides, structures_of
from normbank.dicom.codes import LATERALITY, LOOKS
from normbank.dicom.elements import Elements, items_of
from normbank.dicom.tags import tag
from normbank.dicom.values import Where
from normbank.errors import UnknownLabelError

_TYPE, _REGION = tag("SegmentedPropertyTypeCodeSequence"), tag("AnatomicRegionSequence")
_MODIFIERS = (
    tag("SegmentedPropertyTypeModifierCodeSequence"),
    tag("AnatomicRegionModifierSequence"),
)
_CODE, _SCHEME = tag("CodeValue"), tag("CodingSchemeDesignator")
_NUMBER, _LABEL = tag("SegmentNumber"), tag("SegmentLabel")

_SNOMED = {concept.value: name for name, (concept, _) in LOOKS.items() if concept.scheme == "SCT"}
_SIDES = {concept.value: side for side, concept in LATERALITY.items()}
_SIDE_WORDS = {
    **dict.fromkeys(("left", "l", "lh", "lt"), "left"),
    **dict.fromkeys(("right", "r", "rh", "rt"), "right"),
}
_NAMES = {
    **{name.replace("-", " "): name for name in STRUCTURES[1:]},
    **dict.fromkeys(("thalamus proper",), "thalamus"),
    **dict.fromkeys(("hippocampus proper",), "hippocampus"),
    **dict.fromkeys(("caudate nucleus", "nucleus caudatus"), "caudate"),
    **dict.fromkeys(("globus pallidus",), "pallidum"),
    **dict.fromkeys(("lat ventricle", "lat vent", "choroid plexus"), "lateral-ventricle"),
    **dict.fromkeys(
        (
            *("inf lat vent", "inf lat ventricle", "inferior horn", "temporal horn"),
            *("inferior horn of lateral ventricle", "temporal horn of lateral ventricle"),
        ),
        "inferior-lateral-ventricle",
    ),
    **dict.fromkeys(("3rd ventricle", "ventricle 3", "ventricle third"), "third-ventricle"),
    **dict.fromkeys(("4th ventricle", "ventricle 4", "ventricle fourth"), "fourth-ventricle"),
    **dict.fromkeys(("ventraldc", "ventral diencephalon"), "ventral-dc"),
    **dict.fromkeys(("cerebrospinal fluid",), "csf"),
    **dict.fromkeys(("brainstem",), "brain-stem"),
    **dict.fromkeys(
        (
            *("cerebral cortex", "cerebral gray matter", "cerebral grey matter", "cortex"),
            *("accumbens", "accumbens area", "nucleus accumbens"),
        ),
        "cerebral-gm",
    ),
    **dict.fromkeys(("cerebral white matter", "cerebrum white matter"), "cerebral-wm"),
    **dict.fromkeys(
        (
            *("cerebellum cortex", "cerebellar cortex", "cerebellum gray matter"),
            *("cerebellar gray matter", "cerebellum grey matter", "cerebellar grey matter"),
            "cerebellum exterior",
        ),
        "cerebellum-gm",
    ),
    **dict.fromkeys(("cerebellum white matter", "cerebellar white matter"), "cerebellum-wm"),
}
_FREESURFER_ALONE = {  # in the middle, and with ids of their own
    "wm hypointensities": 77,
    "optic chiasm": 85,
    "5th ventricle": 72,
    "cc posterior": 251,
    "cc mid posterior": 252,
    "cc central": 253,
    "cc mid anterior": 254,
    "cc anterior": 255,
}
_PARCELS = {"ctx": "cerebral-gm", "wm": "cerebral-wm"}  # `ctx-lh-insula`


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a SEG: its number, its label, and what these and its codes mean."""

    number: int
    label: str
    structure: str | None
    side: str | None


def segment_of(item: Elements) -> Segment:
    """Understand an item of a SEG's SegmentSequence: by its codes, else by its label."""
    where = Where((item,))
    label = where.text(_LABEL) or ""
    named, named_side = understood(label)
    structure, side = None, None
    for number in (_TYPE, _REGION):
        for described in items_of(item.get(number)):
            structure = structure or _coded(described, _SNOMED)
            for modifiers in _MODIFIERS:
                for modifier in items_of(described.get(modifiers)):
                    side = side or _coded(modifier, _SIDES)
    for modifier in items_of(item.get(_MODIFIERS[1])):
        side = side or _coded(modifier, _SIDES)
    return Segment(where.whole(_NUMBER) or 0, label, structure or named, side or named_side)


def _coded(item: Elements, meanings: Mapping[str, str]) -> str | None:
    """What a code means, SNOMED CT or its older SRT codes."""
    where = Where((item,))
    value, scheme = where.text(_CODE), where.text(_SCHEME)
    if value is None or scheme is None:
        return None
    code = Code(value, scheme, "")
    return next((word for sct, word in meanings.items() if code == Code(sct, "SCT", "")), None)


def understood(label: str) -> tuple[str | None, str | None]:
    """The structure and the side that a segment's label names, as common tools write them.

    Examples
    --------
    >>> understood("Left-Inf-Lat-Vent"), understood("hippocampus_right")
    (('inferior-lateral-ventricle', 'left'), ('hippocampus', 'right'))
    """
    words = re.findall(r"[a-z0-9]+", label.casefold())
    sides = [_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS]
    side = sides[0] if len(set(sides)) == 1 else None
    rest = [word for word in words if word not in _SIDE_WORDS]
    if len(rest) > 1 and rest[0] in _PARCELS and side:
        return _PARCELS[rest[0]], side
    return _NAMES.get(" ".join(rest)), side


def ids_of(
    segments: Sequence[Segment], scheme: str, mapping: Mapping[str, int] | None = None
) -> dict[int, int]:
    """The id of each segment in a label scheme, by the segment's number.

    Parameters
    ----------
    segments : of one SEG
    scheme : one of `LABEL_SCHEMES`
    mapping : label or number of a segment -> id, before what codes and labels say

    Raises
    ------
    UnknownLabelError
        `unknown_segments` if some are not understood; the facts list them.
    InvalidError
        If there is no such scheme.
    """
    table = structures_of(scheme)
    given = dict(mapping or {})
    found, unknown = {}, []
    for segment in segments:
        wanted = given.get(segment.label, given.get(str(segment.number)))
        label_id = _id_of(segment, scheme) if wanted is None else wanted
        if label_id is None or label_id not in table:
            unknown.append(segment)
        else:
            found[segment.number] = label_id
    if unknown:
        shown = ", ".join(f"{one.number} ({one.label or 'no label'})" for one in unknown[:8])
        raise UnknownLabelError(
            f"Nobody can say which structures of {scheme} these segments are: {shown}"
            f"{', …' if len(unknown) > 8 else ''}. Say it in a table from their labels or "
            "numbers to ids; a paired structure needs a side.",
            code="unknown_segments",
            facts={"segments": [{"number": s.number, "label": s.label} for s in unknown]},
        )
    return found


def _id_of(segment: Segment, scheme: str) -> int | None:
    if segment.structure is None:
        words = " ".join(re.findall(r"[a-z0-9]+", segment.label.casefold()))
        return _FREESURFER_ALONE.get(words) if scheme == "freesurfer" else None
    left, right = ids_of_sides(scheme)[segment.structure]
    if left != right and segment.side is None:
        return None
    return right if segment.side == "right" else left
