"""Supervisor of the API and worker processes: readiness, restarts, shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import httpx

from cli.local.errors import LaunchError
from cli.local.processes import Child, log_tail

TICK_S = 0.2
READY_WITHIN_S = 180.0
END_WITHIN_S = 7.0
DEATHS_BEFORE_READY = 3
DEATHS_IN_A_ROW = 10


class Supervisor:
    """Run children until `stop` is set.

    Parameters
    ----------
    url : of the API
    stop : ends `run` when set
    on_ready : called once, when `/readyz` is green
    on_restart : called with a message for each child that ended and is started again
    """

    def __init__(
        self,
        children: Sequence[Child],
        url: str,
        stop: threading.Event,
        *,
        on_ready: Callable[[], None],
        on_restart: Callable[[str], None],
    ) -> None:
        self._children = children
        self._url = url
        self._stop = stop
        self._on_ready = on_ready
        self._on_restart = on_restart

    def run(self) -> None:
        """Start all, report readiness once, restart what ends, end all.

        Raises
        ------
        LaunchError
            The service does not become ready, or a child keeps ending.
        """
        try:
            if self._wait_until_ready():
                self._on_ready()
                while not self._stop.wait(TICK_S):
                    self._check_children(DEATHS_IN_A_ROW)
        finally:
            self._end()

    def _wait_until_ready(self) -> bool:
        """Wait for a green `/readyz`; False if `stop` was set before."""
        give_up_at = time.monotonic() + READY_WITHIN_S
        while not self._stop.is_set():
            self._check_children(DEATHS_BEFORE_READY)
            answer = self._readiness()
            if answer is not None and answer.is_success:
                return True
            if time.monotonic() > give_up_at:
                text = answer.text if answer is not None else "nothing"
                raise LaunchError(f"not ready after {READY_WITHIN_S:.0f} s; /readyz says {text}")
            self._stop.wait(TICK_S)
        return False

    def _readiness(self) -> httpx.Response | None:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=2.0, trust_env=False)
        except httpx.HTTPError:
            return None

    def _check_children(self, deaths: int) -> None:
        for child in self._children:
            message = child.check()
            if message is None:
                continue
            if child.quick_deaths >= deaths:
                raise LaunchError(
                    f"the {child.name} keeps ending; {child.log} ends with\n{log_tail(child.log)}"
                )
            self._on_restart(message)

    def _end(self) -> None:
        """Terminate every child; kill what is left at the deadline."""
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + END_WITHIN_S
        for child in self._children:
            child.wait_or_kill(deadline)
