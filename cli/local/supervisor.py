"""Keeps the children of `normbank up` running, and says when they serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import httpx
import typer

from cli.local.processes import Child, log_tail
from cli.output.terminal import fail, note

TICK_S = 0.2
READY_WITHIN_S = 180.0
END_WITHIN_S = 7.0
DEATHS_BEFORE_READY = 3
DEATHS_IN_A_ROW = 10


class Supervisor:
    """Runs children until told to stop.

    Parameters
    ----------
    url : of the API
    stop : ends `run` when set
    """

    def __init__(self, children: Sequence[Child], url: str, stop: threading.Event) -> None:
        self._children = children
        self._url = url
        self._stop = stop

    def run(self) -> None:
        """Start all, say `ready` once, keep all alive, end all."""
        try:
            if self._become_ready():
                typer.echo(f"ready {self._url}")
                while not self._stop.wait(TICK_S):
                    self._tend(DEATHS_IN_A_ROW)
        finally:
            self._end()

    def _become_ready(self) -> bool:
        """True when `/readyz` is green, False when told to stop before."""
        give_up_at = time.monotonic() + READY_WITHIN_S
        while not self._stop.is_set():
            self._tend(DEATHS_BEFORE_READY)
            answer = self._readiness()
            if answer is not None and answer.is_success:
                return True
            if time.monotonic() > give_up_at:
                said = answer.text if answer is not None else "nothing"
                fail(f"not ready after {READY_WITHIN_S:.0f} s; /readyz says {said}")
            self._stop.wait(TICK_S)
        return False

    def _readiness(self) -> httpx.Response | None:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=2.0, trust_env=False)
        except httpx.HTTPError:
            return None

    def _tend(self, deaths: int) -> None:
        for child in self._children:
            ended = child.tend()
            if ended is None:
                continue
            if child.quick_deaths >= deaths:
                fail(f"the {child.name} keeps ending; {child.log} ends with\n{log_tail(child.log)}")
            note(ended)

    def _end(self) -> None:
        """End every child, politely first."""
        for child in self._children:
            child.ask_to_end()
        deadline = time.monotonic() + END_WITHIN_S
        for child in self._children:
            child.end(deadline)
