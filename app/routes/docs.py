"""The API's reference as one plain page: no script, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from app.http.auth import ROLES_FIELD, allow, allow_anyone
from normbank.entities import Role

CSP = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,b.m{font-family:ui-monospace,monospace}h2{margin-top:2.5rem;border-top:1px solid #ccc}"
    "td,th{text-align:left;padding:.1rem .8rem .1rem 0;vertical-align:top}"
)


def docs_router(*, open_docs: bool) -> APIRouter:
    """`/docs` and `/openapi.json`: for any key, or for anyone where the setting says so."""
    router = APIRouter()
    access = allow_anyone() if open_docs else allow(*Role)
    router.add_api_route(
        "/openapi.json", openapi_json, openapi_extra=access, include_in_schema=False
    )
    router.add_api_route("/docs", docs, openapi_extra=access, include_in_schema=False)
    return router


def openapi_json(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


def docs(request: Request) -> HTMLResponse:
    page = "".join(_page(request.app.openapi()))
    return HTMLResponse(page, headers={"Content-Security-Policy": CSP})


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    yield f"<style>{STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{_text(info['description'])}</p>"
    yield "<p>The same for machines: <a href=openapi.json>openapi.json</a></p>"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    roles = ", ".join(operation.get(ROLES_FIELD, ()))
    yield f"<h2><b class=m>{method.upper()}</b> <code>{escape(path)}</code></h2>"
    yield f"<p>{_text(operation.get('description', ''))}<br>Roles: {escape(roles)}.</p><table>"
    for parameter in operation.get("parameters", ()):
        yield _row(parameter["name"], f"{parameter['in']}: {parameter.get('description', '')}")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        for name, schema in content.get("schema", {}).get("properties", {}).items():
            yield _row(name, f"{kind}: {schema.get('description', schema.get('type', ''))}")
    for status, answer in operation["responses"].items():
        yield _row(status, f"{answer['description']} ({', '.join(answer.get('content', {}))})")
    yield "</table>"


def _row(name: str, text: str) -> str:
    return f"<tr><th><code>{escape(name)}</code><td>{_text(text)}"


def _text(markdown: str) -> str:
    return escape(markdown).replace("\n\n", "<p>")
