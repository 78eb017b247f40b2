"""What the OpenAPI document says beyond the handlers' own signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.bodies.problems import ProblemBody
from app.http.auth import SECURITY_SCHEMES
from app.http.errors import EXAMPLES, PROBLEM_MEDIA_TYPE

TITLE = "normbank"
DESCRIPTION = """
MR brain segmentation that learns a new scanner from about four labelled scans
and never changes what it already knows.

**Research use only. Not a medical device.**

Every request carries a key, except `/livez` and `/readyz`; `x-roles` of an
operation lists the roles that may call it. Every answer carries
`X-Request-Id`. Every answer that is not a success is
`application/problem+json` (RFC 9457) with a stable `code`.
"""

Responses = dict[int | str, dict[str, Any]]

FILE = {"type": "string", "format": "binary"}
FILES = {"type": "array", "items": FILE}
TEXT = {"type": "string"}
IMAGE = (
    "NIfTI (`.nii`, `.nii.gz`) or MGH (`.mgz`, `.mgh`), told by the first bytes; the part's file "
    "name may be anything, or left out beside a content type that is no text's"
)

SCAN_PARTS = {"oneOf": [FILE, FILES]}
SCAN = (
    f"{IMAGE}; or one DICOM MR series: a `.zip`, or its files as repeated parts (an enhanced one "
    "is one file). What else lies in such a folder is skipped"
)


def problems(*statuses: int) -> Responses:
    """`responses` of the errors a path can answer, besides 401, 403, 422 and 503."""
    return {status: _problem(status) for status in sorted({401, 403, 422, 503, *statuses})}


def _problem(status: int) -> dict[str, Any]:
    code = EXAMPLES[status]
    example = {
        "type": f"urn:normbank:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": "What went wrong, for people.",
        "instance": "urn:normbank:request:5f0c3f0a-8d4e-4f52-9a35-b0d3f6f1a5d7",
        "code": code,
    }
    return {
        "description": example["title"],
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/ProblemBody"},
                "example": example,
            }
        },
    }


def form(required: tuple[str, ...], **properties: Mapping[str, Any]) -> dict[str, Any]:
    """`requestBody` of a multipart path."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema}},
        }
    }


def headers(**described: str) -> dict[str, Any]:
    """`headers` of a response; underscores in the names stand for hyphens."""
    return {
        name.replace("_", "-"): {"description": text, "schema": TEXT}
        for name, text in described.items()
    }


ETAG = headers(ETag="the domain's revision, for If-Match")
LOCATION = headers(Location="the new domain", ETag="its revision")
ORIGIN_HEADERS = headers(
    X_Normbank_Domain="the domain that answered",
    X_Normbank_Version="its version",
    X_Normbank_Backbone="sha256 of the shared weights",
)
FLAGS_HEADER = headers(X_Normbank_Flags="codes of its flags, comma-separated, where there are any")
LABELS_ANSWER: dict[str, Any] = {
    "description": "`.nii.gz` on the scan's own grid, FreeSurfer ids",
    "headers": {**ORIGIN_HEADERS, **FLAGS_HEADER},
    "content": {"application/gzip": {"schema": FILE}},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        components = schema.setdefault("components", {})
        components["securitySchemes"] = SECURITY_SCHEMES
        _add_problem(components.setdefault("schemas", {}))
        app.openapi_schema = schema
    return app.openapi_schema


def _add_problem(schemas: dict[str, Any]) -> None:
    """The problem's schema, and none of the framework's own error bodies."""
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["ProblemBody"] = problem
