"""From errors to answers: the only place that knows status codes.

Every answer that is not a success is `application/problem+json` (RFC 9457).
The kinds below the line exist only in HTTP; everything else is raised by the
layers underneath, which do not know that they are being served.
"""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg.errors import DiskFull
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from normbank import errors as core
from normbank.errors import BusyError, NormbankError

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
DATABASE_RETRY_S = 5


class UnauthorizedError(NormbankError):
    """No key, or one that is unknown, expired or revoked."""

    code = "unauthorized"


class ForbiddenError(NormbankError):
    """The key is good, its role is not enough."""

    code = "forbidden"


class MalformedRequestError(NormbankError):
    """The bytes of the request are not what its headers say."""

    code = "malformed_request"


class UploadTimeoutError(NormbankError):
    """The client sends too slowly, or not at all."""

    code = "upload_timeout"


class TooManyUploadsError(BusyError):
    """One key sends more at once than it may."""

    code = "too_many_uploads"


class NotAcceptableError(NormbankError):
    code = "not_acceptable"


class UnsupportedMediaError(NormbankError):
    code = "unsupported_media_type"


class GoneError(NormbankError):
    """It was there, and it will not come back."""

    code = "gone"


class PreconditionRequiredError(NormbankError):
    code = "precondition_required"


class PreconditionFailedError(NormbankError):
    code = "stale_revision"


STATUS: Mapping[type[NormbankError], int] = {
    core.NotFoundError: 404,
    core.ConflictError: 409,
    core.InvalidError: 422,
    core.UnknownFileKindError: 415,
    core.TooLargeError: 413,
    BusyError: 503,
    # The store behind this service has given back something else than was put there.
    core.CorruptBlobError: 502,
    MalformedRequestError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotAcceptableError: 406,
    UploadTimeoutError: 408,
    GoneError: 410,
    PreconditionFailedError: 412,
    UnsupportedMediaError: 415,
    PreconditionRequiredError: 428,
    TooManyUploadsError: 429,
    # Nobody reads this answer; logs and metrics count it by the number that nginx uses.
    core.AbandonedError: 499,
}

# A code that says more than its kind does.
STATUS_BY_CODE: Mapping[str, int] = {"stale_revision": 412, "domain_archived": 404}

EXAMPLES: Mapping[int, str] = {
    400: "malformed_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    406: "not_acceptable",
    408: "upload_timeout",
    409: "conflict",
    410: "gone",
    412: "stale_revision",
    413: "too_large",
    415: "unknown_file_kind",
    422: "invalid",
    428: "precondition_required",
    429: "too_many_uploads",
    502: "corrupt_blob",
    503: "busy",
    507: "disk_full",
}


def status_of(error: NormbankError) -> int:
    """HTTP status of an error; 500 for a kind that no client can cause."""
    if error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code]
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build one problem document; `facts` become further members."""
    body = {
        "type": f"urn:normbank:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": f"urn:normbank:request:{request_id}",
        "code": code,
    }
    body |= {name: value for name, value in (facts or {}).items() if name not in body}
    return _AsciiResponse(body, status, dict(headers or {}), PROBLEM_MEDIA_TYPE)


class _AsciiResponse(JSONResponse):
    """Escapes what is not ASCII: a problem may quote text that UTF-8 cannot hold."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def answer_error(error: Exception, request_id: str) -> JSONResponse:
    """Turn any exception into its problem document.

    What nobody raised on purpose becomes a 500 that tells nothing but the
    request's id; the log has the rest.
    """
    if isinstance(error, NormbankError):
        return _answer_known(error, request_id)
    if core.is_disk_full(error) or _database_is_full(error):
        return problem(
            507,
            "disk_full",
            "There is no room left to store this; nothing of it was kept.",
            request_id=request_id,
        )
    if _database_is_away(error):
        return problem(
            503,
            "database_unavailable",
            "The database does not answer; try again later.",
            request_id=request_id,
            headers={"Retry-After": str(DATABASE_RETRY_S)},
        )
    if isinstance(error, DataError):
        return problem(
            422,
            "bad_text",
            "A value holds a character that cannot be stored.",
            request_id=request_id,
        )
    return _internal(request_id)


def _database_is_away(error: Exception) -> bool:
    """Whether it does not answer, or not in time: lost, frozen, locked, all connections taken."""
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, OperationalError | TimeoutError)


def _database_is_full(error: Exception) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, DiskFull)


def _answer_known(error: NormbankError, request_id: str) -> JSONResponse:
    status = status_of(error)
    if status == 500:
        log.error("uncaught %s", type(error).__name__, extra={"code": error.code})
        return _internal(request_id)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = 'Bearer realm="normbank"'
    return problem(
        status, error.code, str(error), request_id=request_id, facts=error.facts, headers=headers
    )


def _internal(request_id: str) -> JSONResponse:
    detail = "The service failed; the request id finds the cause in its log."
    return problem(500, "internal", detail, request_id=request_id)


def install_handlers(app: FastAPI) -> None:
    """Make every error of the framework and of ours a problem document."""
    app.add_exception_handler(NormbankError, _handle)
    app.add_exception_handler(OperationalError, _handle)
    app.add_exception_handler(DataError, _handle)
    app.add_exception_handler(TimeoutError, _handle)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_validation)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)


async def _handle(request: Request, error: Exception) -> JSONResponse:
    return answer_error(error, request.state.request_id)


async def _handle_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = http.HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    return problem(
        error.status_code,
        {404: "no_such_path", 408: "upload_timeout", 413: "too_large"}.get(
            error.status_code, phrase.lower().replace(" ", "_").replace("-", "_")
        ),
        f"{phrase}.",
        request_id=request.state.request_id,
        headers=headers,
    )


def _allowed_methods(request: Request) -> Iterable[str]:
    """Methods that some route answers on the request's path."""
    table: Mapping[str, Mapping[str, Any]] = request.app.openapi()["paths"]
    route = request.scope.get("route")
    path = getattr(route, "path_format", None)
    return {method.upper() for method in table.get(path or "", {})}


async def _handle_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [
        {
            "field": ".".join(str(part) for part in item["loc"]),
            "code": item["type"],
            "message": item["msg"],
        }
        for item in error.errors()
    ]
    return problem(
        422,
        "validation",
        "The request does not fit its schema; `errors` names each field.",
        request_id=request.state.request_id,
        facts={"errors": fields},
    )


async def _handle_disconnect(request: Request, error: Exception) -> JSONResponse:
    return answer_error(core.AbandonedError(), request.state.request_id)
