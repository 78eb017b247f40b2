"""Which series of a PACS is taken, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normbank.pacs.config import Pacs, Route
from normbank.pacs.query import Facts
from normbank.services.matching import explain

LEAST_SLICES = 16
LEAST_EXTENT_MM = 60.0
HEADS = ("HEAD", "BRAIN", "SKULL", "NEURO", "CRANI", "SCHAEDEL", "KOPF", "CEREB")
_NO_SCANS = ("LOCALIZER", "PROJECTION IMAGE", "MIP", "MPR", "SCREEN SAVE")
_COMPUTED = ("DERIVED", "SECONDARY")


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of a series.

    Attributes
    ----------
    route : how it is segmented; None: it is not taken
    reason : why not
    """

    route: Route | None
    reason: str = ""


def choose(pacs: Pacs, facts: Facts, instances: int) -> Choice:
    """Which route a series takes, by the header of one of its instances.

    Only MR images, and no localisers, ever take one: so never what normbank has
    stored itself. Without routes every whole-head volume is taken.

    Parameters
    ----------
    facts : by DICOM keyword, see `normbank.pacs.query.header_of`
    instances : how many the series has
    """
    if facts.get("Modality") != "MR":
        return Choice(None, "no MR")
    kinds = _texts(facts.get("ImageType"))
    if any(word in kind for kind in kinds for word in _NO_SCANS):
        return Choice(None, "a localiser, a projection or a picture")
    if not pacs.route:
        reason = _no_whole_head(facts, kinds, instances)
        return Choice(None, reason) if reason else Choice(Route())
    for route in pacs.route:
        if all(outcome.holds for outcome in explain(route.match, facts)):
            return Choice(route)
    return Choice(None, "no route fits")


def missing_images(facts: Facts, instances: int) -> int:
    """How many more images the header promises than the series has; 0 where it says nothing."""
    promised = _number(facts.get("ImagesInAcquisition"))
    if promised is None or facts.get("NumberOfFrames"):
        return 0
    return max(int(promised) - instances, 0)


def _no_whole_head(facts: Facts, kinds: Sequence[str], instances: int) -> str:
    """Why a series cannot be a volume of a whole head; empty: it can."""
    if any(kind in _COMPUTED for kind in kinds[:2]):
        return "computed from other images"
    part = " ".join(_texts(facts.get("BodyPartExamined")))
    if part and not any(word in part for word in HEADS):
        return "no head"
    if (_number(facts.get("NumberOfTemporalPositions")) or 1) > 1:
        return "more than one volume"
    slices = int(_number(facts.get("NumberOfFrames")) or instances)
    if slices < LEAST_SLICES:
        return f"fewer than {LEAST_SLICES} slices"
    step_mm = _number(facts.get("SpacingBetweenSlices")) or _number(facts.get("SliceThickness"))
    if step_mm and slices * step_mm < LEAST_EXTENT_MM:
        return f"thinner than {LEAST_EXTENT_MM:.0f} mm"
    return ""


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [str(one).upper() for one in values if one not in (None, "")]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
