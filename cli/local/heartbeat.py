"""Heartbeats: a server that runs but does not answer is noticed, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_S = 5.0
MISSED_CHECKS = 3
START_WITHIN_S = 180.0
UNTIL_ANSWERED_S = 1.0

Answers = Callable[[int], bool]
"""Whether the server with this process id answers; may block for some seconds."""


class Heartbeat:
    """Asks one server again and again whether it answers, from a thread of its own.

    A server that has just started has `start_within_s` for its first answer.
    From then on some checks in a row may be missed, so that one long step, or
    a machine that was suspended, ends nobody.

    Parameters
    ----------
    answers : the question
    every_s : seconds from one question to the next
    missed_checks : so many in a row mean that it hangs
    start_within_s : seconds for the first answer of a new process
    """

    def __init__(
        self,
        answers: Answers,
        *,
        every_s: float = EVERY_S,
        missed_checks: int = MISSED_CHECKS,
        start_within_s: float = START_WITHIN_S,
    ) -> None:
        self._answers = answers
        self._every_s, self._missed_checks = every_s, missed_checks
        self._start_within_s = start_within_s
        self._pid: int | None = None
        self._lost: int | None = None
        self._stopping, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its question; nobody waits for it."""
        self._stopping.set()
        self._changed.set()

    def lost(self, pid: int | None) -> bool:
        """Whether the process of that id hangs; another id than before is a new server."""
        if pid != self._pid:
            self._pid = pid
            self._changed.set()
        return pid is not None and self._lost == pid

    def _run(self) -> None:
        pid, answered, missed, since = None, False, 0, 0.0
        while not self._stopping.is_set():
            asked_at = time.monotonic()
            self._changed.clear()
            if self._pid != pid:
                pid, answered, missed, since = self._pid, False, 0, asked_at
            if pid is not None:
                if self._answers(pid):
                    answered, missed = True, 0
                elif answered or asked_at - since > self._start_within_s:
                    missed += 1
                if missed >= self._missed_checks:
                    self._lost = pid
            pause_s = self._every_s if answered else min(self._every_s, UNTIL_ANSWERED_S)
            self._changed.wait(max(pause_s - (time.monotonic() - asked_at), 0.1))
