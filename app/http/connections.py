"""Connections that ask nothing are closed, so that they keep out nobody who does.

uvicorn ends a connection that is silent after an answer, and waits for ever for
the head of a request. `HttpConnection` is its protocol with an end to that wait
too: `uvicorn --http app.http.connections:HttpConnection`.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD_S = 20.0
"""Within which the head of a request must have come, from the connection or its first byte on."""

MOST_WITHOUT_REQUEST = 512
"""Connections that may wait for a head; one more ends the one that has waited longest."""

_waiting: WeakKeyDictionary[ServerState, dict[HttpConnection, None]] = WeakKeyDictionary()


class HttpConnection(H11Protocol):
    """uvicorn's connection, which ends when the head of a request does not come."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # In the order in which they began to wait.
        self._all_waiting = _waiting.setdefault(self.server_state, {})
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        if len(self._all_waiting) > MOST_WITHOUT_REQUEST:
            next(iter(self._all_waiting)).timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        self._stop_waiting()
        super().timeout_keep_alive_handler()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)
            self._all_waiting[self] = None

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._all_waiting.pop(self, None)


def raise_open_files_limit() -> None:
    """Let the process open as many files, connections among them, as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system that calls its limit infinite, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
