"""Scans of drawn heads find their domain by what they look like; what is no brain finds none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from normbank.entities import AdaptationRecord, Domain, DomainState, Signature
from normbank.errors import NoCloseDomainError
from normbank.imaging.scan import Scan
from pipeline.identify import (
    Identifier,
    Reason,
    ServedDomain,
    identify,
    shipped_identifier,
    signature_of,
)
from pipeline.identify.identifier import BrokenIdentifierError
from simulate import CONTRASTS, Scanner, scan
from simulate.phantom import draw_head, head_affine

SHAPE = (176, 208, 200)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTRAST_OF = {
    "sim-t1w-3t": "t1w",
    "sim-t1w-1p5t": "t1w",
    "sim-t2w-3t": "t2w",
    "sim-pd-3t": "pd",
    "sim-flair-3t": "flair",
}


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return shipped_identifier()


@pytest.fixture(scope="module")
def built_in() -> list[ServedDomain]:
    states = read_states(SHIPPED, load_backbone())
    return [served(name, sha256=state.sha256) for name, state in states.items()]


def served(
    name: str,
    *,
    sha256: str = "other",
    match: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> ServedDomain:
    state = DomainState(name, 1, sha256, "b", None, {}, metrics or {}, None, None, NOW)
    domain = Domain(name, name, match or {}, "freesurfer", (), 1, 1, False, 0, NOW, NOW)
    return ServedDomain(domain, state)


@cache
def labels_of(seed: int) -> np.ndarray:
    return draw_head(seed, SHAPE)


@cache
def head(contrast: str, seed: int = 1, noise: float = 0.05) -> Scan:
    scanner = Scanner(contrast, CONTRASTS[contrast], bias=0.2, noise=noise, blur_mm=1.5, gamma=1.1)
    drawn = scan(labels_of(1), head_affine(SHAPE), scanner, seed)
    return Scan(drawn.data, drawn.affine)


def volume(data: np.ndarray) -> Scan:
    return Scan(data.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))


def ball(radius: float) -> np.ndarray:
    x, y, z = np.mgrid[-48:48, -56:56, -48:48]
    return np.asarray(np.sqrt((x / 40) ** 2 + (y / 48) ** 2 + (z / 38) ** 2) < radius)


def strange_volumes() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    noise = random.standard_normal((96, 112, 96))
    shells = sum(ball(radius) * (-1) ** n for n, radius in enumerate((1.0, 0.8, 0.6, 0.4, 0.2)))
    grid = (np.indices((96, 112, 96)) % 7 < 2).any(0) & ball(1.0)
    return {
        "noise": np.abs(noise),
        "smooth noise": ball(1.0) * (1 + 0.2 * ndimage.gaussian_filter(noise, 4) * 40).clip(0),
        "a ball": ball(1.0) + 0.02 * np.abs(noise),
        "shells": shells + 0.02 * np.abs(noise),
        "a grid": (grid + 0.5 * ball(1.0)) + 0.02 * np.abs(noise),
        "a mask": ball(1.0).astype(float),
    }


@pytest.mark.parametrize("contrast", ["t1w", "t2w", "pd", "flair"])
def test_a_head_without_header_goes_to_a_domain_of_its_contrast(
    contrast: str, identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    found = identify(head(contrast), {}, built_in, identifier)
    assert (CONTRAST_OF[found.chosen()], found.reason) == (contrast, Reason.STATISTICS)
    assert {candidate.domain for candidate in found.ranking} == set(CONTRAST_OF)
    assert sum(candidate.probability for candidate in found.ranking) == pytest.approx(1)
    assert found.to_json()["ranking"][0]["domain"] == found.domain


@pytest.mark.parametrize("name", list(strange_volumes()))
def test_what_is_no_brain_belongs_nowhere(
    name: str, identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    found = identify(volume(strange_volumes()[name]), {}, built_in, identifier)
    assert (found.domain, found.reason) == (None, Reason.ABSTAINED)
    with pytest.raises(NoCloseDomainError) as refused:
        found.chosen()
    assert refused.value.code == "not_a_brain_mr"
    assert len(refused.value.facts["ranking"]) == len(CONTRAST_OF)


def test_nothing_at_all_belongs_nowhere(
    identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    found = identify(volume(np.zeros((96, 112, 96))), {}, built_in, identifier)
    assert found.reason is Reason.ABSTAINED
    assert all(candidate.distance is None for candidate in found.ranking)


def test_gain_storage_order_and_field_of_view_change_nothing(
    identifier: Identifier,
) -> None:
    whole = head("t1w")
    place = identifier.place(whole)
    turned = Scan(whole.data[::-1].transpose(2, 0, 1) * 1e4, _turned(whole.affine))
    assert identifier.place(turned) == pytest.approx(place, abs=0.01)
    cut = Scan(whole.data[6:-6, 6:-6, 30:], _moved(whole.affine, (6, 6, 30)))
    apart = np.abs(identifier.place(cut) - place)
    assert apart.mean() < 0.5  # scans of one scanner lie 1 apart


def _turned(affine: np.ndarray) -> np.ndarray:
    """Of a volume whose first axis is reversed, and whose axes are then z, x, y."""
    flipped = affine @ np.array(
        [[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    return flipped[:, [2, 0, 1, 3]]


def _moved(affine: np.ndarray, start: tuple[int, int, int]) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ start
    return moved


def test_a_site_s_own_scanner_is_told_from_the_built_in_ones(
    identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    own = signature_of([head("pd", seed, 0.02) for seed in (2, 3, 4)], identifier)
    assert own is not None
    assert own.cases == 3
    ward = served("ward-7", metrics={"signature": own.to_json()})
    found = identify(head("pd", 5, 0.02), {}, [*built_in, ward], identifier)
    assert (found.chosen(), found.reason) == ("ward-7", Reason.STATISTICS)
    assert found.margin is not None
    assert found.margin > 0.5
    other = identify(head("t2w"), {}, [*built_in, ward], identifier)
    assert other.chosen() == "sim-t2w-3t"


def test_rules_go_first_and_a_scan_that_does_not_look_like_it_is_flagged(
    identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    flair = next(one for one in built_in if one.id == "sim-flair-3t")
    ruled = replace(flair, domain=replace(flair.domain, match={"Manufacturer": "Siemens"}))
    domains = [ruled, *(one for one in built_in if one is not flair)]
    facts = {"Manufacturer": "SIEMENS"}
    found = identify(head("t2w"), facts, domains, identifier)
    assert (found.domain, found.reason) == ("sim-flair-3t", Reason.RULES)
    assert [flag.code for flag in found.flags] == ["unlike_its_domain"]
    assert identify(head("flair"), facts, domains, identifier).flags == ()
    failed = identify(head("t2w"), {"Manufacturer": "GE"}, domains, identifier)
    assert failed.domain == "sim-t2w-3t"
    assert {c.domain: c.failed_rules for c in failed.ranking}["sim-flair-3t"] == ("Manufacturer",)


def test_versions_without_signature_are_found_by_rules_or_when_they_are_alone(
    identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    old = served("old", metrics={"before": {"mean_dice": 0.8}, "after": {"mean_dice": 0.9}})
    alone = identify(head("t1w"), {}, [old], identifier)
    assert (alone.domain, alone.reason, alone.margin) == ("old", Reason.ONLY_DOMAIN, None)
    beside = identify(head("t1w"), {}, [old, *built_in], identifier)
    assert CONTRAST_OF[beside.chosen()] == "t1w"
    assert beside.ranking[-1].domain == "old"
    assert beside.ranking[-1].distance is None
    two = identify(head("t1w"), {}, [old, served("older")], identifier)
    assert two.reason is Reason.ABSTAINED
    assert two.refusal == "no_close_domain"


def test_the_only_domain_takes_what_is_near_it_and_nothing_else(
    identifier: Identifier, built_in: list[ServedDomain]
) -> None:
    t2w = [one for one in built_in if one.id == "sim-t2w-3t"]
    taken = identify(head("t2w"), {}, t2w, identifier)
    assert (taken.domain, taken.reason) == ("sim-t2w-3t", Reason.ONLY_DOMAIN)
    refused = identify(head("t1w"), {}, t2w, identifier)
    assert (refused.domain, refused.refusal) == (None, "no_close_domain")


def test_a_signature_survives_being_stored_and_belongs_to_its_space(
    identifier: Identifier,
) -> None:
    own = signature_of([head("t1w"), head("t1w", 2)], identifier)
    assert own is not None
    again = Signature.from_json(own.to_json())
    assert again.mean == pytest.approx(own.mean, abs=1e-4)
    assert again.cases == 2
    record = {"before": {"mean_dice": 0.5}, "after": {"mean_dice": 0.6}, "signature": own.to_json()}
    assert AdaptationRecord.from_json(record).signature == again
    assert identifier.cloud("unknown", again) is not None
    assert identifier.cloud("unknown", replace(again, space="of another release")) is None
    assert signature_of([head("t1w")], identifier) is None


def test_an_identifier_survives_its_file_and_a_broken_one_is_refused(
    identifier: Identifier, tmp_path: Path
) -> None:
    identifier.save(tmp_path / "copy")
    copy = Identifier.read(tmp_path / "copy")
    assert copy.space == identifier.space
    assert copy.place(head("t1w")) == pytest.approx(identifier.place(head("t1w")))
    (tmp_path / "broken").write_bytes((tmp_path / "copy").read_bytes()[:1000])
    with pytest.raises(BrokenIdentifierError):
        Identifier.read(tmp_path / "broken")
