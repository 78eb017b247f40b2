"""Keys and roles: who may do what.

Two checks, both closed by default. `check_key` lets nobody in without a good key, before
a byte of the body is read. `check_role`, a dependency of the whole application, then
compares the key's role with what the route declares through `allow(...)`; a route that
declares nothing is denied to everybody. The same declaration is what OpenAPI shows, so
the documented role is the enforced one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import Depends, Request
from sqlalchemy.exc import TimeoutError
from starlette.datastructures import Headers

from app.http.errors import ForbiddenError, UnauthorizedError
from normbank.entities import ApiKey, Role

ROLES_FIELD = "x-roles"
ANYONE = "anyone"
REGISTRY_WAIT_S = 5.0

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer <key>`, a key made with `normbank keys`.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key, for clients that cannot set `Authorization`.",
    },
}


def allow(*roles: Role, **extra: Any) -> dict[str, Any]:
    """Declare a route's roles, as its `openapi_extra`; admin may do everything.

    Parameters
    ----------
    roles : those allowed besides admin
    extra : further members of the OpenAPI operation
    """
    names = [str(role) for role in Role if role in roles or role is Role.ADMIN]
    return {ROLES_FIELD: names, "security": [{"bearer": []}, {"apiKey": []}], **extra}


def allow_anyone() -> dict[str, Any]:
    """Declare a route that needs no key."""
    return {ROLES_FIELD: [ANYONE], "security": []}


def declared_roles(route: object) -> Collection[str]:
    """Roles a route declares; empty when it declares none."""
    extra = getattr(route, "openapi_extra", None) or {}
    roles: Collection[str] = extra.get(ROLES_FIELD, ())
    return roles


def secret_of(headers: Headers) -> str | None:
    """The key a request carries, None without one."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    return headers.get("x-api-key")


async def check_key(
    headers: Headers,
    authenticate: Callable[[str], ApiKey | None],
    threads: anyio.CapacityLimiter,
) -> ApiKey:
    """The key that a request carries.

    Nothing is remembered from one request to the next: a revoked key is
    refused from the next request on.

    Parameters
    ----------
    authenticate : looks a secret up in the registry; blocks
    threads : in which it does so, apart from those of the handlers

    Raises
    ------
    UnauthorizedError
        Without a key, or with one that is unknown, expired or revoked.
    sqlalchemy.exc.TimeoutError
        The registry has not answered within `REGISTRY_WAIT_S`.
    """
    secret = secret_of(headers)
    if secret is None:
        raise UnauthorizedError("Send a key as `Authorization: Bearer` or `X-API-Key`.")
    key = None
    with anyio.move_on_after(REGISTRY_WAIT_S) as waiting:
        key = await to_thread.run_sync(
            authenticate, secret, limiter=threads, abandon_on_cancel=True
        )
    if waiting.cancelled_caught:
        raise TimeoutError("The registry of keys does not answer.")
    if key is None:
        raise UnauthorizedError("This key is unknown, expired or revoked.")
    return key


async def check_role(request: Request) -> None:
    """Deny what the route does not declare for the key's role."""
    roles = declared_roles(request.scope.get("route"))
    if ANYONE in roles:
        return
    key: ApiKey | None = getattr(request.state, "key", None)
    if key is None or str(key.role) not in roles:
        raise ForbiddenError(
            "The role of this key does not allow this.", facts={"roles": list(roles)}
        )


async def current_key(request: Request) -> ApiKey:
    """The key that authenticated the request."""
    key: ApiKey = request.state.key
    return key


KeyDep = Annotated[ApiKey, Depends(current_key)]
