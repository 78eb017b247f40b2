"""Which labelled scans of a scanner are learnt from, and which only judge."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from training.manifest import Row


@dataclass(frozen=True)
class Fold:
    """One way to divide a scanner's cases.

    Attributes
    ----------
    number : 0 is the manifest's own way
    adapt : the labelled cases; the first half is learnt from, the second judges
    test : never looked at before the end
    """

    scanner: str
    number: int
    adapt: tuple[Row, ...]
    test: tuple[Row, ...]

    @property
    def name(self) -> str:
        return f"{self.scanner}-{self.number}"

    @property
    def halves(self) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
        half = (len(self.adapt) + 1) // 2
        return self.adapt[:half], self.adapt[half:]


def folds_of(rows: Sequence[Row], rotated: Collection[str] = ()) -> list[Fold]:
    """Every scanner's folds, in the order of the manifest.

    Parameters
    ----------
    rows : those of the roles `adapt` and `test`; others are left out
    rotated : scanners with few cases: each block of as many cases as there are
        test cases is the test block once
    """
    found = []
    for scanner in dict.fromkeys(row.domain for row in rows):
        adapt = tuple(r for r in rows if r.domain == scanner and r.role == "adapt")
        test = tuple(r for r in rows if r.domain == scanner and r.role == "test")
        if len(adapt) < 2 or not test:
            continue
        found.append(Fold(scanner, 0, adapt, test))
        if scanner in rotated:
            found += _rotations(scanner, adapt, test)
    return found


def _rotations(scanner: str, adapt: tuple[Row, ...], test: tuple[Row, ...]) -> list[Fold]:
    size = len(test)
    blocks = [adapt[at : at + size] for at in range(0, len(adapt) - size + 1, size)]
    return [
        Fold(scanner, number, tuple(r for r in (*adapt, *test) if r not in block), block)
        for number, block in enumerate(blocks, start=1)
    ]
