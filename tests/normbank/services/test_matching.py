"""Rules over header facts."""

from __future__ import annotations

from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import pytest

from normbank.entities import Domain
from normbank.errors import InvalidError
from normbank.services.matching import explain, route, rule_conflicts, validate_rules

FACTS = {
    "Manufacturer": "SIEMENS",
    "ManufacturersModelName": "Prisma_fit",
    "MagneticFieldStrength": 3,
    "ProtocolName": "t1_mprage_sag",
    "FlipAngle": "9",
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "MTState": False,
}


def holds(rules: dict[str, Any], facts: dict[str, Any]) -> bool:
    return all(outcome.holds for outcome in explain(rules, facts))


def domain(domain_id: str, rules: dict[str, Any], archived: bool = False) -> Domain:
    at = datetime.now(UTC)
    return Domain(domain_id, domain_id, rules, "muse", (), 1, 1, archived, 0, at, at)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"Manufacturer": "Siemens"},
        {"manufacturer": " siemens "},
        {"MagneticFieldStrength": 3.0},
        {"MagneticFieldStrength": "3"},
        {"MagneticFieldStrength": {"min": 2.5, "max": 3.5}},
        {"MagneticFieldStrength": {"min": 3}},
        {"FlipAngle": 9},
        {"FlipAngle": {"max": 9}},
        {"ProtocolName": {"regex": "MPRAGE"}},
        {"ManufacturersModelName": {"in": ["Skyra", "prisma_fit"]}},
        {"ImageType": "primary"},
        {"MTState": False},
        {"Manufacturer": "Siemens", "FlipAngle": {"min": 8, "max": 10}},
    ],
)
def test_rules_that_hold(rules: dict[str, Any]) -> None:
    validate_rules(rules)
    assert holds(rules, FACTS)


@pytest.mark.parametrize(
    "rules",
    [
        {"Manufacturer": "GE"},
        {"MagneticFieldStrength": {"max": 2.9}},
        {"MagneticFieldStrength": True},
        {"ProtocolName": {"min": 1}},
        {"ProtocolName": {"regex": "^mprage"}},
        {"ManufacturersModelName": {"in": ["Skyra"]}},
        {"MTState": 0},
        {"StationName": "MR1"},
        {"Manufacturer": "Siemens", "FlipAngle": 8},
    ],
)
def test_rules_that_do_not_hold(rules: dict[str, Any]) -> None:
    validate_rules(rules)
    assert not holds(rules, FACTS)


@pytest.mark.parametrize(
    "rules",
    [
        [],
        "Siemens",
        {"": "x"},
        {"A": None},
        {"A": []},
        {"A": {}},
        {"A": {"min": "1"}},
        {"A": {"min": True}},
        {"A": {"min": 2, "max": 1}},
        {"A": {"min": float("nan")}},
        {"A": {"regex": "("}},
        {"A": {"regex": 1}},
        {"A": {"regex": "x" * 201}},
        {"A": {"in": []}},
        {"A": {"in": [{}]}},
        {"A": {"in": ["x"], "min": 1}},
        {"A": {"like": "x"}},
        {"A": {"regex": "(?=x)"}},
        {"A": {"regex": "x{1000}{1000}"}},
        {"A": {"regex": "\ud800"}},
        {"A": "x\x00"},
        {"A": "\udfff"},
        {"A": {"in": ["\ud800"]}},
        {"\ud800": 1},
        {f"fact {n}": 1 for n in range(51)},
    ],
)
def test_rules_that_cannot_be_applied_are_refused(rules: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        validate_rules(rules)
    assert caught.value.code == "bad_match"


def test_no_expression_takes_long_to_search() -> None:
    rules = {"ProtocolName": {"regex": "(a+)+$"}}
    validate_rules(rules)
    started = perf_counter()
    assert not holds(rules, {"ProtocolName": "a" * 199 + "!"})
    assert perf_counter() - started < 1


def test_a_stored_expression_that_cannot_be_read_does_not_hold() -> None:
    assert not holds({"ProtocolName": {"regex": "(?=t1)"}}, FACTS)


def test_a_header_with_half_a_character_is_searched_too() -> None:
    assert holds({"ProtocolName": {"regex": "mprage"}}, {"ProtocolName": "\ud800 MPRAGE"})


def test_the_domain_with_the_most_rules_comes_first() -> None:
    siemens = domain("siemens", {"Manufacturer": "Siemens"})
    at_3t = domain("at-3t", {"Manufacturer": "Siemens", "MagneticFieldStrength": 3})
    also = domain("also", {"MagneticFieldStrength": {"min": 2}})
    others = [
        domain("ge", {"Manufacturer": "GE"}),
        domain("ruleless", {}),
        domain("gone", {"Manufacturer": "Siemens"}, archived=True),
    ]
    found = route([*others, siemens, also, at_3t], FACTS)
    assert [one.id for one in found] == ["at-3t", "also", "siemens"]
    assert route([siemens], {}) == []


def test_each_rule_is_explained() -> None:
    outcomes = explain({"Manufacturer": "GE", "FlipAngle": 9, "StationName": "x"}, FACTS)
    assert [(o.fact, o.found, o.holds) for o in outcomes] == [
        ("Manufacturer", "SIEMENS", False),
        ("FlipAngle", "9", True),
        ("StationName", None, False),
    ]


@pytest.mark.parametrize(
    ("one", "two", "kind"),
    [
        ({"Manufacturer": "Siemens"}, {"manufacturer": "SIEMENS"}, "equal"),
        (
            {"Manufacturer": {"in": ["GE", "Siemens"]}},
            {"Manufacturer": {"in": ["Siemens", "GE"]}},
            "equal",
        ),
        ({"Manufacturer": "GE", "EchoTime": 3}, {"Manufacturer": "GE"}, "implied"),
        ({"EchoTime": {"min": 2, "max": 3}}, {"EchoTime": {"min": 1}}, "implied"),
        ({"ProtocolName": "3D MPRAGE"}, {"ProtocolName": {"regex": "mprage"}}, "implied"),
        ({"EchoTime": {"max": 3}}, {"EchoTime": {"min": 2}}, "ambiguous"),
        ({"Manufacturer": "GE"}, {"EchoTime": 3}, "ambiguous"),
        ({"Manufacturer": "GE"}, {"Manufacturer": "Siemens"}, None),
        ({"EchoTime": {"max": 2}}, {"EchoTime": {"min": 3}}, None),
        ({"Manufacturer": "GE", "EchoTime": 3}, {"ProtocolName": "t1"}, None),
        ({}, {}, None),
    ],
)
def test_rules_that_two_domains_cannot_be_told_by_are_reported(
    one: dict[str, Any], two: dict[str, Any], kind: str | None
) -> None:
    found = rule_conflicts([domain("a", one), domain("b", two)])
    assert [conflict.kind for conflict in found] == ([] if kind is None else [kind])
    assert rule_conflicts([domain("a", one), domain("b", two, archived=True)]) == []
    turned = rule_conflicts([domain("b", two), domain("a", one)])
    if kind == "implied":
        assert [(c.domain, c.other) for c in (*found, *turned)] == [("a", "b")] * 2
