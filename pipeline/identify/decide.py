"""The three tiers: header rules, then statistics, then what the near domains answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normbank.entities import Domain, DomainState, Flag
from normbank.entities.flags import warning
from normbank.errors import EmptyScanError
from normbank.imaging.scan import Scan
from normbank.services.matching import explain, route
from pipeline.identify.answers import (
    NO_CLOSE_DOMAIN,
    NOT_A_BRAIN,
    Candidate,
    Identification,
    Reason,
)
from pipeline.identify.identifier import Identifier, Vector
from pipeline.identify.looks import Looker, NetworkOf

UNLIKE = "unlike_its_domain"
_UNLIKE = 1.8  # standard deviations from a domain's own scans that are worth a word
_NEAR = 1.35  # from here on a network has to see a brain too
_FAR = 2.6  # and from here on nothing helps
_BLIND_FAR = 2.0  # the same where no network can be asked
_TIE = 0.6  # a smaller margin is one
_CLEARLY = 0.1  # more of the structures plausible: a better answer


@dataclass(frozen=True, slots=True)
class ServedDomain:
    """A domain that is not archived, and the version that answers for it."""

    domain: Domain
    state: DomainState

    @property
    def id(self) -> str:
        return self.domain.id


def identify(
    scan: Scan,
    facts: Mapping[str, Any],
    served: Sequence[ServedDomain],
    identifier: Identifier,
    *,
    network_of: NetworkOf | None = None,
) -> Identification:
    """Which domain a scan belongs to.

    Parameters
    ----------
    scan : any orientation and spacing
    facts : header facts by the names of BIDS; empty without a header
    served : the domains to choose from
    network_of : asked where statistics alone leave a doubt, which is rare; None: they have
        to do

    Returns
    -------
    the choice and its reason; `abstained` where nothing is near, see `Identification.chosen`
    """
    try:
        place = identifier.place(scan)
    except EmptyScanError:
        place = None
    ranking = _ranked(place, facts, served, identifier)
    matching = route([one.domain for one in served], facts)
    if matching:
        return _by_rules(matching, ranking)
    if place is None:
        return _abstained(ranking, NOT_A_BRAIN)
    if ranking and ranking[0].distance is None:
        return _without_statistics(ranking)
    states = {one.id: one.state for one in served}
    looker = None if network_of is None else Looker(scan, network_of)
    return _by_statistics(place, ranking, states, identifier, looker)


def _ranked(
    place: Vector | None,
    facts: Mapping[str, Any],
    served: Sequence[ServedDomain],
    identifier: Identifier,
) -> tuple[Candidate, ...]:
    """Every served domain, the most probable first; those nobody knows of last."""
    clouds = {one.id: identifier.cloud(one.state.sha256, one.state.signature) for one in served}
    densities = {
        name: -np.inf if cloud is None or place is None else cloud.log_density(place)
        for name, cloud in clouds.items()
    }
    greatest = max(densities.values(), default=-np.inf)
    weights = {
        name: float(np.exp(density - greatest)) if np.isfinite(density) else 0.0
        for name, density in densities.items()
    }
    total = sum(weights.values()) or 1.0
    candidates, kept = [], {}
    for one in served:
        cloud = clouds[one.id]
        distance = None if cloud is None or place is None else cloud.distance(place)
        outcomes = explain(one.domain.match, facts)
        failed = tuple(outcome.fact for outcome in outcomes if not outcome.holds)
        kept[one.id] = 1 - len(failed) / len(outcomes) if outcomes else 0.0
        candidates.append(Candidate(one.id, distance, weights[one.id] / total, failed))

    def order(one: Candidate) -> tuple[bool, float, float, str]:
        return one.distance is None, -densities[one.domain], -kept[one.domain], one.domain

    return tuple(sorted(candidates, key=order))


def _by_rules(matching: Sequence[Domain], ranking: tuple[Candidate, ...]) -> Identification:
    """The domain with the most rules that hold; of several, the most probable one."""
    most = {domain.id for domain in matching if len(domain.match) == len(matching[0].match)}
    taken = next(candidate for candidate in ranking if candidate.domain in most)
    return _taken(taken, Reason.RULES, ranking)


def _without_statistics(ranking: tuple[Candidate, ...]) -> Identification:
    """Nobody knows what the scans of any domain look like."""
    if len(ranking) == 1:
        return Identification(ranking[0].domain, Reason.ONLY_DOMAIN, None, ranking)
    return _abstained(ranking, NO_CLOSE_DOMAIN)


def _by_statistics(
    place: Vector,
    ranking: tuple[Candidate, ...],
    states: Mapping[str, DomainState],
    identifier: Identifier,
    looker: Looker | None,
) -> Identification:
    if not ranking:
        return _abstained(ranking, NO_CLOSE_DOMAIN)
    first = ranking[0]
    if not _is_near(first, states, looker):
        known = [cloud.distance(place) for cloud in identifier.built_in.values()]
        strange = min(known, default=np.inf) > _NEAR
        return _abstained(ranking, NOT_A_BRAIN if strange else NO_CLOSE_DOMAIN)
    taken = _better_answer(ranking, states, looker)
    alone = len(ranking) == 1
    return _taken(taken, Reason.ONLY_DOMAIN if alone else Reason.STATISTICS, ranking)


def _is_near(first: Candidate, states: Mapping[str, DomainState], looker: Looker | None) -> bool:
    """Whether a scan is one of a domain's; where it is a little far, the network is asked."""
    distance = np.inf if first.distance is None else first.distance
    if distance <= _NEAR:
        return True
    if looker is None or distance > _FAR:
        return bool(distance <= _BLIND_FAR)
    anatomy = looker.anatomy(states[first.domain])
    if anatomy is None:
        return bool(distance <= _BLIND_FAR)
    return anatomy.is_brain and not looker.saturated()


def _better_answer(
    ranking: tuple[Candidate, ...], states: Mapping[str, DomainState], looker: Looker | None
) -> Candidate:
    """The most probable domain; of two that tie, the one whose answer is clearly better."""
    first = ranking[0]
    if looker is None or len(ranking) < 2 or first.probability - ranking[1].probability >= _TIE:
        return first
    mine, other = (looker.anatomy(states[candidate.domain]) for candidate in ranking[:2])
    if mine is None or other is None or other.plausible < mine.plausible + _CLEARLY:
        return first
    return ranking[1]


def _taken(taken: Candidate, reason: Reason, ranking: tuple[Candidate, ...]) -> Identification:
    margin = None
    if taken.distance is not None:
        others = [c.probability for c in ranking if c.domain != taken.domain]
        margin = taken.probability - max(others, default=0.0)
    return Identification(taken.domain, reason, margin, ranking, _doubts(taken))


def _doubts(taken: Candidate) -> tuple[Flag, ...]:
    if taken.distance is None or taken.distance <= _UNLIKE:
        return ()
    said = (
        f"The scan lies {taken.distance:.1f} standard deviations from those of its domain: new"
        " software, another coil, contrast agent or another protocol may have changed it."
    )
    return (warning(UNLIKE, said),)


def _abstained(ranking: tuple[Candidate, ...], refusal: str) -> Identification:
    return Identification(None, Reason.ABSTAINED, None, ranking, refusal=refusal)
