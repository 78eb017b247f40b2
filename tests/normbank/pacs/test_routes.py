"""Which series the listener takes."""

from __future__ import annotations

from typing import Any

import pytest

from normbank.pacs.config import Pacs, Route
from normbank.pacs.routes import choose, missing_images

HEAD = {
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "SeriesDescription": "T1 MPRAGE sag",
    "BodyPartExamined": "HEAD",
    "SliceThickness": 1.0,
    "Rows": 256,
}
PLAIN = Pacs(name="main", dicomweb_url="http://host/rs")
ROUTED = PLAIN.model_copy(
    update={
        "route": (
            Route(match={"SeriesDescription": {"regex": "mprage"}, "Rows": {"min": 512}}),
            Route(match={"SeriesDescription": {"regex": "mprage"}}, domain="ward-7", store=False),
            Route(match={"ImageType": "DERIVED"}, domain="ward-8"),
        )
    }
)


@pytest.mark.parametrize(
    ("changes", "instances", "reason"),
    [
        ({}, 176, ""),
        ({"BodyPartExamined": None}, 176, ""),
        ({"BodyPartExamined": "Brain"}, 176, ""),
        ({"NumberOfFrames": 176}, 1, ""),
        ({"Modality": "SEG"}, 1, "no MR"),
        ({"Modality": "CT"}, 176, "no MR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, 40, "a localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, 176, "a localiser, a projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "ADC"]}, 176, "computed from other images"),
        ({"BodyPartExamined": "KNEE"}, 176, "no head"),
        ({"NumberOfTemporalPositions": "120"}, 4800, "more than one volume"),
        ({}, 3, "fewer than 16 slices"),
        ({"SliceThickness": 2.0}, 20, "thinner than 60 mm"),
    ],
)
def test_without_routes_every_whole_head_volume_is_taken(
    changes: dict[str, Any], instances: int, reason: str
) -> None:
    choice = choose(PLAIN, {**HEAD, **changes}, instances)
    assert (choice.route is None) == bool(reason)
    assert choice.reason.startswith(reason)


def test_the_first_route_that_fits_is_taken() -> None:
    taken = choose(ROUTED, HEAD, 3).route
    assert taken is not None
    assert (taken.domain, taken.store) == ("ward-7", False)
    large = choose(ROUTED, {**HEAD, "Rows": 512}, 3).route
    assert large is not None
    assert (large.domain, large.store) == ("auto", True)
    assert choose(ROUTED, {**HEAD, "SeriesDescription": "T2"}, 176).reason == "no route fits"


def test_no_route_takes_what_is_no_mr() -> None:
    everything = PLAIN.model_copy(update={"route": (Route(),)})
    assert choose(everything, {**HEAD, "ImageType": ["DERIVED"]}, 2).route is not None
    assert choose(everything, {**HEAD, "Modality": "SEG"}, 2).route is None


def test_images_that_the_header_promises_are_missed() -> None:
    assert missing_images({"ImagesInAcquisition": 176}, 170) == 6
    assert missing_images({"ImagesInAcquisition": 176}, 180) == 0
    assert missing_images({"ImagesInAcquisition": 176, "NumberOfFrames": 176}, 1) == 0
    assert missing_images({}, 3) == 0
