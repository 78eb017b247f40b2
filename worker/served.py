"""What a domain is served with now, which an adaptation has to beat."""

from __future__ import annotations

from collections.abc import Sequence

from normbank.entities import DomainState
from normbank.errors import ConflictError, StateError
from worker.labelled import LabelledScan, evaluate
from worker.workplace import Workplace


def served_version(place: Workplace, domain_id: str) -> DomainState | None:
    """A domain's active version; one that fails its checks is quarantined first."""
    while (number := place.registry.domain(domain_id).active_version) is not None:
        active = place.registry.version(domain_id, number)
        try:
            place.load(active)
        except StateError as error:
            place.registry.quarantine(domain_id, number, str(error))
        except ConflictError:  # its backbone is gone: nobody can say whether it is sound
            return active
        else:
            return active
    return None


def served_dice(
    place: Workplace, cases: Sequence[LabelledScan], active: DomainState
) -> float | None:
    """Mean Dice of a version on its own backbone, which may be an older one.

    Parameters
    ----------
    cases : with references in the current backbone's classes, which every
        answer is translated to: both sides of the gate are judged alike

    Returns
    -------
    None where its backbone is neither current nor on the shelf
    """
    try:
        spec, state = place.spec_of(active), place.load(active)
    except ConflictError:
        return None
    predictor = place.predict_with(state)
    scores = evaluate(cases, predictor, spec, judge=place.backbone.spec)
    return float(scores["mean_dice"])
