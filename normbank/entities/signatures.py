"""What a domain's scans look like to `pipeline.identify`, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Signature:
    """Where a domain's own cases lie among all scans.

    Nothing of a single case can be told from it.

    Attributes
    ----------
    space : names what the numbers mean; signatures of unlike spaces cannot be compared
    mean, spread : (K,), of the cases; the standard deviation is that of the cases themselves
    cases : how many
    """

    space: str
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    cases: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote; ValueError where the numbers are none of a distribution."""
        mean, spread = (tuple(map(float, values[name])) for name in ("mean", "spread"))
        signature = cls(str(values["space"]), mean, spread, int(values["cases"]))
        if not all(map(math.isfinite, (*mean, *spread))) or min(spread, default=-1) < 0:
            raise ValueError("a mean or a spread is no number")
        if len(mean) != len(spread) or signature.cases < 1:
            raise ValueError("means, spreads and cases do not go together")
        return signature

    def to_json(self) -> dict[str, Any]:
        return {
            "space": self.space,
            "mean": [round(value, 4) for value in self.mean],
            "spread": [round(value, 4) for value in self.spread],
            "cases": self.cases,
        }
