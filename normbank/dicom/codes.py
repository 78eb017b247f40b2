"""How DICOM calls and draws each structure: SNOMED CT codes, sides, FreeSurfer's colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from normbank.anatomy import FREESURFER_OUTPUT

PRIVATE_SCHEME = "99NORMBANK"

Side = Literal["left", "right"]
Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Concept:
    """A code: value, scheme, meaning."""

    value: str
    scheme: str
    meaning: str


ANATOMICAL_STRUCTURE = Concept("91723000", "SCT", "Anatomical Structure")
LATERALITY: Mapping[Side, Concept] = MappingProxyType(
    {"left": Concept("7771000", "SCT", "Left"), "right": Concept("24028007", "SCT", "Right")}
)

LOOKS: Mapping[str, tuple[Concept, Rgb]] = MappingProxyType(
    {
        "cerebellum-gm": (Concept("25991003", "SCT", "Cerebellar Cortex"), (230, 148, 34)),
        "cerebellum-wm": (Concept("33060004", "SCT", "Cerebellar White Matter"), (220, 248, 164)),
        "cerebral-gm": (Concept("40146001", "SCT", "Cerebral Gray Matter"), (205, 62, 78)),
        "cerebral-wm": (Concept("68523003", "SCT", "Cerebral White Matter"), (245, 245, 245)),
        "thalamus": (Concept("42695009", "SCT", "Thalamus"), (0, 118, 14)),
        "hippocampus": (Concept("5366008", "SCT", "Hippocampus"), (220, 216, 20)),
        "amygdala": (Concept("4958002", "SCT", "Amygdala"), (103, 255, 255)),
        "lateral-ventricle": (Concept("66720007", "SCT", "Lateral Ventricle"), (120, 18, 134)),
        "inferior-lateral-ventricle": (
            Concept("53118009", "SCT", "Inferior Horn of Lateral Ventricle"),
            (196, 58, 250),
        ),
        "third-ventricle": (Concept("49841001", "SCT", "Third ventricle"), (204, 182, 142)),
        "fourth-ventricle": (Concept("35918002", "SCT", "Fourth Ventricle"), (42, 204, 164)),
        "caudate": (Concept("11000004", "SCT", "Caudate Nucleus"), (122, 186, 220)),
        "putamen": (Concept("89278009", "SCT", "Putamen"), (236, 13, 176)),
        "pallidum": (Concept("14738005", "SCT", "Globus Pallidus"), (12, 48, 255)),
        # SNOMED CT has the diencephalon, of which this is a part.
        "ventral-dc": (
            Concept("ventral-dc", PRIVATE_SCHEME, "Ventral Diencephalon"),
            (165, 42, 42),
        ),
        "csf": (Concept("65216001", "SCT", "Cerebrospinal Fluid"), (60, 60, 60)),
        "brain-stem": (Concept("119238007", "SCT", "Brain Stem"), (119, 159, 176)),
    }
)


@dataclass(frozen=True, slots=True)
class AnsweredStructure:
    """One structure of one side as DICOM says it.

    Attributes
    ----------
    freesurfer_id : as answered labels have it
    name : as volumes have it, such as `left-hippocampus`
    label : for people, such as `Left Hippocampus`
    side : None where a structure has none
    rgb : FreeSurfer's colour
    """

    freesurfer_id: int
    name: str
    label: str
    concept: Concept
    side: Side | None
    rgb: Rgb


@cache
def answered_structures() -> Mapping[int, AnsweredStructure]:
    """Every structure that can be answered, by its FreeSurfer id, in the order of ids."""
    found: dict[int, AnsweredStructure] = {}
    for name, ids in FREESURFER_OUTPUT.items():
        concept, rgb = LOOKS[name]
        sides: dict[int, Side | None] = {ids.left: None}
        if ids.paired:
            sides = {ids.left: "left", ids.right: "right"}
        for number, side in sides.items():
            prefix = f"{side}-" if side else ""
            label = f"{side.title()} {concept.meaning}" if side else concept.meaning
            found[number] = AnsweredStructure(number, prefix + name, label, concept, side, rgb)
    return MappingProxyType(dict(sorted(found.items())))
