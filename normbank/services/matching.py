"""Which domain a scan belongs to, by the facts in its header.

A rule set maps names of BIDS sidecar fields to what their values must be:

    {"Manufacturer": "Siemens",                             equal, any case
     "MagneticFieldStrength": {"min": 2.5, "max": 3.5},     one bound will do
     "ProtocolName": {"regex": "mprage"},                   found, any case
     "ManufacturersModelName": {"in": ["Prisma", "Skyra"]}}

All must hold. Where the fact is a list, one of its values must. Regular
expressions are RE2's: searched in linear time whatever the pattern, without
back-references and look-around.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from normbank.entities import Domain
from normbank.errors import InvalidError

RULES_LIMIT = 50
TEXT_LIMIT = 200
PATTERN_BYTES = 1 << 20  # what one compiled pattern may take


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """One rule, what the header says, and whether the rule holds."""

    fact: str
    wanted: Any
    found: Any
    holds: bool


def validate_rules(rules: Any) -> None:
    """Raise InvalidError `bad_match` unless the rules can be applied."""
    if not isinstance(rules, Mapping) or len(rules) > RULES_LIMIT:
        raise bad_match(f"The rules are one JSON object of at most {RULES_LIMIT} members.")
    for fact, condition in rules.items():
        if not _is_text(fact) or not fact:
            raise bad_match(f"A field's name is text of at most {TEXT_LIMIT} characters.")
        _validate_one(fact, condition)


def _validate_one(fact: str, condition: Any) -> None:
    if not isinstance(condition, Mapping):
        if not _is_scalar(condition):
            raise bad_match(f"'{fact}' must be text, a number, true, false, or an object.")
        return
    if set(condition) == {"in"}:
        choices = condition["in"]
        if not isinstance(choices, list) or not choices or not all(map(_is_scalar, choices)):
            raise bad_match(f"'{fact}': 'in' takes a list of texts or numbers.")
    elif set(condition) == {"regex"}:
        _validate_pattern(fact, condition["regex"])
    elif condition and set(condition) <= {"min", "max"}:
        if not all(_is_number(bound) for bound in condition.values()):
            raise bad_match(f"'{fact}': 'min' and 'max' are numbers.")
        if condition.get("min", -math.inf) > condition.get("max", math.inf):
            raise bad_match(f"'{fact}': 'min' lies above 'max'.")
    else:
        raise bad_match(f"'{fact}': use 'min' and 'max', or 'regex', or 'in'.")


def _validate_pattern(fact: str, pattern: Any) -> None:
    if not _is_text(pattern) or not pattern:
        raise bad_match(f"'{fact}': 'regex' is text of at most {TEXT_LIMIT} characters.")
    try:
        _compiled(pattern)
    except re2.error as error:
        raise bad_match(f"'{fact}': this regular expression cannot be read.") from error


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """A pattern that ignores case; `re2.error` when RE2 cannot read it."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False  # it would quote the pattern on stderr
    options.max_mem = PATTERN_BYTES
    return re2.compile(pattern, options)


def explain(rules: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[RuleOutcome, ...]:
    """Each rule with what the header says.

    Parameters
    ----------
    rules : as `validate_rules` accepts them
    facts : members of a BIDS sidecar, names in any case
    """
    values_by_name = {str(name).casefold(): value for name, value in facts.items()}
    return tuple(
        RuleOutcome(fact, condition, value, _holds(condition, value))
        for fact, condition in rules.items()
        for value in [values_by_name.get(fact.casefold())]
    )


def route(domains: Iterable[Domain], facts: Mapping[str, Any]) -> list[Domain]:
    """Domains whose rules all hold, those with the most rules first.

    A domain without rules, or an archived one, is never found by them.
    """
    matches = [
        domain
        for domain in domains
        if domain.match
        and not domain.archived
        and all(outcome.holds for outcome in explain(domain.match, facts))
    ]
    return sorted(matches, key=lambda domain: (-len(domain.match), domain.id))


@dataclass(frozen=True, slots=True)
class RuleConflict:
    """Two domains whose rules may both hold for one scan.

    Attributes
    ----------
    domain, other : ids
    kind : `equal`, the same rules; `implied`, whatever fits `domain` fits `other` too;
        `ambiguous`, as many rules, and no fact keeps them apart
    """

    domain: str
    other: str
    kind: str

    def to_json(self) -> dict[str, str]:
        return {"domain": self.domain, "other": self.other, "kind": self.kind}


def rule_conflicts(domains: Sequence[Domain]) -> list[RuleConflict]:
    """Pairs of unarchived domains that header rules cannot, or can hardly, keep apart.

    `implied` is often meant: the domain with more rules goes first. Regular expressions
    are compared as texts; two unlike ones are taken to go together.
    """
    ruled = [domain for domain in domains if domain.match and not domain.archived]
    conflicts = []
    for place, one in enumerate(ruled):
        for two in ruled[place + 1 :]:
            first, second = _implies(one.match, two.match), _implies(two.match, one.match)
            if first and second:
                conflicts.append(RuleConflict(one.id, two.id, "equal"))
            elif first:
                conflicts.append(RuleConflict(one.id, two.id, "implied"))
            elif second:
                conflicts.append(RuleConflict(two.id, one.id, "implied"))
            elif len(one.match) == len(two.match) and not _apart(one.match, two.match):
                conflicts.append(RuleConflict(one.id, two.id, "ambiguous"))
    return conflicts


def _implies(rules: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether every scan that fits `rules` fits `other`, as far as the texts show."""
    own = {fact.casefold(): condition for fact, condition in rules.items()}
    return all(
        fact.casefold() in own and _is_within(own[fact.casefold()], condition)
        for fact, condition in other.items()
    )


def _is_within(condition: Any, other: Any) -> bool:
    """Whether what one condition lets pass, another one does too."""
    choices = _choices(condition)
    if choices is not None:
        return all(_holds(other, choice) for choice in choices)
    if _choices(other) is not None or ("regex" in condition) != ("regex" in other):
        return False
    if "regex" in condition:
        return bool(condition["regex"].casefold() == other["regex"].casefold())
    low, high = _bounds(condition)
    other_low, other_high = _bounds(other)
    return low >= other_low and high <= other_high


def _apart(rules: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether some fact can never satisfy both."""
    own = {fact.casefold(): condition for fact, condition in rules.items()}
    return any(
        fact.casefold() in own and _exclude(own[fact.casefold()], condition)
        for fact, condition in other.items()
    )


def _exclude(condition: Any, other: Any) -> bool:
    for one, two in ((condition, other), (other, condition)):
        choices = _choices(one)
        if choices is not None:
            return not any(_holds(two, choice) for choice in choices)
    if "regex" in condition or "regex" in other:
        return False
    low, high = _bounds(condition)
    other_low, other_high = _bounds(other)
    return low > other_high or other_low > high


def _choices(condition: Any) -> list[Any] | None:
    """The values that satisfy a condition; None where they are too many to list."""
    if not isinstance(condition, Mapping):
        return [condition]
    return list(condition["in"]) if "in" in condition else None


def _bounds(condition: Mapping[str, Any]) -> tuple[float, float]:
    return condition.get("min", -math.inf), condition.get("max", math.inf)


def _holds(condition: Any, value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds(condition, item) for item in value)
    if value is None:
        return False
    if not isinstance(condition, Mapping):
        return _equal(condition, value)
    if "in" in condition:
        return any(_equal(choice, value) for choice in condition["in"])
    if "regex" in condition:
        return _is_found(condition["regex"], str(value)[:TEXT_LIMIT])
    number = _number(value)
    low, high = _bounds(condition)
    return number is not None and low <= number <= high


def _is_found(pattern: str, text: str) -> bool:
    """Whether a pattern occurs; one that RE2 cannot read, stored before it was used, does not."""
    # RE2 takes text that can be encoded; a header may hold half a surrogate pair.
    encodable = text.encode("utf-8", "replace").decode()
    try:
        return _compiled(pattern).search(encodable) is not None
    except re2.error:
        return False


def _equal(expected: Any, value: Any) -> bool:
    """Numbers by value (3 is "3.0"), truth by truth, text in any case."""
    if isinstance(expected, bool) or isinstance(value, bool):
        return expected is value
    number = _number(value)
    if _is_number(expected):
        return number is not None and math.isclose(expected, number, rel_tol=1e-6)
    return str(expected).strip().casefold() == str(value).strip().casefold()


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LIMIT and is_storable(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool) or _is_number(value) or _is_text(value)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can keep a text: no NUL, and no half of a surrogate pair."""
    return not any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in text)


def bad_match(why: str) -> InvalidError:
    return InvalidError(why, code="bad_match")
