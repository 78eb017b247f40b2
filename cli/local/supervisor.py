"""Supervisor of all servers of a service: readiness, restarts, shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import httpx

from cli.local.errors import LaunchError
from cli.local.kept import Kept
from cli.local.processes import Child, log_tail
from cli.local.restarts import MOST_IN_A_ROW

TICK_S = 0.2
READY_WITHIN_S = 180.0
END_WITHIN_S = 7.0
DEATHS_BEFORE_READY = 3


class Supervisor:
    """Keep children and servers running until `stop` is set.

    Parameters
    ----------
    children : started here, and ended at the end
    servers : embedded ones, which run already and are stopped by who started them
    url : of the API
    stop : ends `run` when set
    on_ready : called once, when `/readyz` is green
    on_restart : called with a message for each of them that ended, or hung, and is started again
    """

    def __init__(
        self,
        children: Sequence[Child],
        url: str,
        stop: threading.Event,
        *,
        on_ready: Callable[[], None],
        on_restart: Callable[[str], None],
        servers: Sequence[Kept] = (),
    ) -> None:
        self._children = children
        self._kept = (*servers, *children)
        self._url = url
        self._stop = stop
        self._on_ready = on_ready
        self._on_restart = on_restart

    def run(self) -> None:
        """Start the children, report readiness once, restart what ends or hangs, end the children.

        Raises
        ------
        LaunchError
            The service does not become ready, or one of them keeps ending.
        """
        beats = [kept.heartbeat for kept in self._kept if kept.heartbeat is not None]
        for heartbeat in beats:
            heartbeat.start()
        try:
            if self._wait_until_ready():
                self._on_ready()
                while not self._stop.wait(TICK_S):
                    self._check(MOST_IN_A_ROW)
        finally:
            for heartbeat in beats:
                heartbeat.stop()
            self._end()

    def _wait_until_ready(self) -> bool:
        """Wait for a green `/readyz`; False if `stop` was set before."""
        give_up_at = time.monotonic() + READY_WITHIN_S
        while not self._stop.is_set():
            self._check(DEATHS_BEFORE_READY)
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

    def _check(self, deaths: int) -> None:
        """Start again what ended or hangs; so many deaths in a row are too many."""
        for kept in self._kept:
            message = kept.check()
            if message is None:
                continue
            if kept.quick_deaths >= deaths or kept.restarts.too_many:
                raise LaunchError(
                    f"the {kept.name} keeps ending; {kept.log} ends with\n{log_tail(kept.log)}"
                )
            self._on_restart(message)

    def _end(self) -> None:
        """Terminate every child; kill what is left at the deadline."""
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + END_WITHIN_S
        for child in self._children:
            child.wait_or_kill(deadline)
