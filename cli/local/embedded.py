"""An embedded server as one of those that `up` keeps running."""

from __future__ import annotations

import signal
from collections.abc import Callable

from cli.local.heartbeat import Heartbeat
from cli.local.kept import Kept
from cli.local.server import EmbeddedServer


class KeptServer(Kept):
    """Starts an embedded server again at the address that the others know.

    It was started before `up` keeps it, and is stopped after that, as a
    context manager.

    Parameters
    ----------
    stop_signal : what ends it as it should, for the reaper
    send_to_reaper : takes the lines of `cli.local.reaper`'s protocol
    """

    def __init__(
        self,
        name: str,
        server: EmbeddedServer,
        stop_signal: signal.Signals,
        send_to_reaper: Callable[[str], None],
        heartbeat: Heartbeat,
    ) -> None:
        super().__init__(name, server.log, heartbeat)
        self._server = server
        self._stop_signal = stop_signal
        self._send_to_reaper = send_to_reaper
        self._tell_reaper()

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def _status(self) -> int | None:
        return self._server.status()

    def _start(self) -> None:
        self._server.run_again()
        self._tell_reaper()

    def _kill(self) -> None:
        ended = self._server.pid
        self._server.kill()
        self._send_to_reaper(f"ended {ended}")

    def _tell_reaper(self) -> None:
        self._send_to_reaper(f"server {self._server.pid} {self._stop_signal:d}")
