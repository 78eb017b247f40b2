"""What the labels of a domain's cases may say."""

from __future__ import annotations

from collections.abc import Sequence

from normbank.anatomy import BACKGROUND, GROUPS, LABEL_SCHEMES, STRUCTURES
from normbank.errors import InvalidError


def check_scheme(scheme: str) -> str:
    """A label scheme the service knows; InvalidError `unknown_label_scheme`."""
    if scheme not in LABEL_SCHEMES:
        raise InvalidError(
            "This label scheme is not known.",
            code="unknown_label_scheme",
            facts={"known": list(LABEL_SCHEMES)},
        )
    return scheme


def check_structures(names: Sequence[str]) -> tuple[str, ...]:
    """Structures in the anatomy's order, once each; InvalidError `unknown_structure`."""
    known_names = [name for name in (*STRUCTURES, *GROUPS) if name != BACKGROUND]
    unknown = sorted(set(names) - set(known_names))
    if unknown:
        raise InvalidError(
            "A structure is not known.",
            code="unknown_structure",
            facts={"unknown": [name[:64] for name in unknown[:20]], "known": known_names},
        )
    return tuple(name for name in known_names if name in names)
