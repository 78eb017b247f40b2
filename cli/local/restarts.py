"""How often something was started again, how long to wait, and when to give up."""

from __future__ import annotations

import time
from collections import deque

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
SOUND_LIFE_S = 20.0
MOST_RESTARTS = 5
WITHIN_S = 60.0
MOST_IN_A_ROW = 10


class Restarts:
    """The lately ended lives of one server.

    Attributes
    ----------
    in_a_row : lives in a row, each shorter than `SOUND_LIFE_S`
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self._ends: deque[float] = deque(maxlen=MOST_RESTARTS)

    def count(self, lived_s: float) -> float:
        """Note that one has ended after so many seconds; the pause before the next."""
        self._ends.append(time.monotonic())
        self.in_a_row = self.in_a_row + 1 if lived_s < SOUND_LIFE_S else 1
        return float(min(FIRST_PAUSE_S * 2 ** (self.in_a_row - 1), LONGEST_PAUSE_S))

    @property
    def too_many(self) -> bool:
        """Whether starting it again mends nothing."""
        full = len(self._ends) == MOST_RESTARTS
        lately = full and time.monotonic() - self._ends[0] < WITHIN_S
        return lately or self.in_a_row >= MOST_IN_A_ROW
