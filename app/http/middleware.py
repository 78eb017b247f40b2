"""What happens to every request before and after its handler.

One ASGI layer around the application: it names the request, asks for the key
before a byte of the body is read, caps the body, and writes one log line and
one count when the answer is out. It never looks into a body.
"""

from __future__ import annotations

import logging
import math
import re
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.auth import check_key
from app.http.errors import answer_error, status_of
from normbank.entities import ApiKey
from normbank.errors import NormbankError
from normbank.logs import frames_of
from normbank.storage.patience import Patience, patient

log = logging.getLogger("app.requests")
alarm = logging.getLogger(__name__)

JSON_BODY_BYTES = 1024 * 1024
JSON_BODY_S = 30.0
LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 5.0
UPLOAD_TIMEOUT = 408  # its client has had its time, and sends too little to lose the answer
UNMATCHED = "unmatched"
ENTRY_THREADS = 8

_FOREIGN_ID = re.compile(r"[0-9a-fA-F-]{16,64}")

Authenticate = Callable[[str], ApiKey | None]
Observe = Callable[[str, str, int, float], None]


class RequestMiddleware:
    """The outermost layer of the application.

    Parameters
    ----------
    authenticate : secret -> key; blocks, so it runs in a thread
    observe : (method, route template, status, seconds)
    open_paths : paths that need no key
    max_request_bytes : body of a multipart request; others get 1 MiB
    database_wait_s : what a request waits for all of the database's answers together
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Authenticate,
        observe: Observe,
        open_paths: Collection[str],
        max_request_bytes: int,
        database_wait_s: float,
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._observe = observe
        self._open_paths = frozenset(open_paths)
        self._max_request_bytes = max_request_bytes
        self._database_wait_s = database_wait_s
        self._entry_threads = anyio.CapacityLimiter(ENTRY_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with patient(self._database_wait_s) as patience:
            await self._answer(scope, receive, send, patience)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, patience: Patience) -> None:
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        body = _Body(receive, headers, self._max_request_bytes, patience)
        scope["state"]["body"] = body
        answer = _Answer(send, body, request_id)
        started = time.perf_counter()
        try:
            if scope["path"] not in self._open_paths:
                scope["state"]["key"] = await check_key(
                    headers, self._authenticate, self._entry_threads
                )
                patience.queue()
            await self._app(scope, body.receive, answer.send)
        except Exception as error:  # the last resort: nothing may leave as a bare 500
            _log_unexpected(error, request_id)
            if answer.status is not None:
                raise
            await answer_error(error, request_id)(scope, body.receive, answer.send)
        finally:
            self._finish(scope, request_id, answer.status, time.perf_counter() - started)

    def _finish(self, scope: Scope, request_id: str, status: int | None, took_s: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if route != UNMATCHED else "-"
        self._observe(method, route, status or 500, took_s)
        facts = {
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status or 500,
            "duration_s": round(took_s, 4),
        }
        probe = scope["path"] in self._open_paths and status == 200
        log.log(logging.DEBUG if probe else logging.INFO, "request", extra=facts)


class _Body:
    """Counts and caps a request's body, and how long it may take: 1 MiB, 30 s, unless it is a form.

    Attributes
    ----------
    unread : whether more of it may come
    """

    def __init__(
        self, receive: Receive, headers: Headers, form_bytes: int, patience: Patience
    ) -> None:
        self._receive = receive
        self._form_bytes = form_bytes
        self._limit = JSON_BODY_BYTES
        self._ends = time.monotonic() + JSON_BODY_S
        self._patience = patience
        self._size = 0
        self._expects_continue = headers.get("expect", "").lower() == "100-continue"
        length = headers.get("content-length", "")
        self._declared = int(length) if length.isdigit() else None
        self.unread = bool(self._declared) or "transfer-encoding" in headers
        self.started = False

    def expect_form(self) -> None:
        """From now on it may be as large as a form, and whoever reads it says how long it takes.

        Raises
        ------
        HTTPException
            413, where more is declared.
        """
        self._limit, self._ends = self._form_bytes, math.inf
        self._check_declared()

    async def receive(self) -> Message:
        """Next message of the body; 413 once the limit is passed, 408 when it comes too late."""
        self._check_declared()
        self.started = True
        message = await self._next()
        self._patience.queue()  # the client's time is not the database's
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self.unread = message.get("more_body", False)
            if self._size > self._limit:
                raise HTTPException(413)
        else:
            self.unread = False
        return message

    def _check_declared(self) -> None:
        if self._declared is not None and self._declared > self._limit:
            raise HTTPException(413)

    async def _next(self) -> Message:
        if not self.unread:  # what comes now is that the client leaves
            return await self._receive()
        try:
            with anyio.fail_after(self._ends - time.monotonic()):
                return await self._receive()
        except TimeoutError as error:
            raise HTTPException(UPLOAD_TIMEOUT) from error

    async def linger(self) -> None:
        """Swallow the rest before an early refusal.

        A client that is still writing when the connection closes loses the
        answer; one that waits for `100 Continue` needs no such favour.
        """
        if not self.unread or (self._expects_continue and not self.started):
            return
        size = 0
        with anyio.move_on_after(LINGER_S):
            while self.unread and size < LINGER_BYTES:
                message = await self._receive()
                size += len(message.get("body", b""))
                self.unread = message.get("more_body", False)


class _Answer:
    """Adds the request's id to the answer and remembers its status."""

    def __init__(self, send: Send, body: _Body, request_id: str) -> None:
        self._send = send
        self._body = body
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
            if message["status"] >= 400 and message["status"] != UPLOAD_TIMEOUT:
                await self._body.linger()
            if self._body.unread:  # what still comes would be read for as long as it does
                headers["Connection"] = "close"
        await self._send(message)


def _request_id(headers: Headers) -> str:
    """The client's id where it is a plain number, which can hold no name."""
    foreign = headers.get("x-request-id", "")
    return foreign if _FOREIGN_ID.fullmatch(foreign) else str(uuid.uuid4())


def _log_unexpected(error: Exception, request_id: str) -> None:
    """Log where it happened, not what it said: messages may quote a client."""
    if isinstance(error, NormbankError) and status_of(error) < 500:
        return
    facts: dict[str, Any] = {
        "request_id": request_id,
        "error": type(error).__name__,
        "frames": frames_of(error.__traceback__),
    }
    alarm.error("unexpected error", extra=facts)
