"""Packs: a domain's version as one small file, out and in."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from app.bodies.domains import DomainBody
from app.bodies.versions import VersionNumber
from app.http.auth import KeyDep, allow
from app.http.forms import Form, FormShape
from app.http.negotiation import etag
from app.http.openapi import FILE, LOCATION, TEXT, form, headers, problems
from app.services import Services, ServicesDep, form_body
from models.packs import Pack, read_pack, write_pack
from models.state import BrokenStateError, State
from normbank.entities import Domain, DomainState, NewState, Signature
from normbank.errors import ConflictError, InvalidError
from normbank.services.annotations import check_scheme

router = APIRouter(tags=["versions"])

PACK_TYPE = "application/x-safetensors"
PACK_BYTES = 16 * 1024 * 1024
SHAPE = FormShape(
    texts=frozenset({"id", "name", "match"}),
    files=frozenset({"pack", "match"}),
)
BODY = form(
    ("pack",),
    pack={**FILE, "description": "from `GET /domains/{id}/versions/{n}/pack`"},
    id={**TEXT, "description": "default: the id the pack came from"},
    name={**TEXT, "description": "default: the pack's"},
    match={**TEXT, "description": "JSON rules over header facts"},
)


PackForm = Annotated[Form, Depends(form_body(SHAPE, max_file_bytes=PACK_BYTES), scope="function")]


@router.get(
    "/domains/{domain_id}/versions/{number}/pack",
    summary="Export a version",
    response_class=Response,
    responses={
        200: {
            "description": "safetensors with facts as metadata",
            "content": {PACK_TYPE: {"schema": FILE}},
            "headers": headers(ETag="content hash of the state"),
        },
        **problems(404, 409, 422),
    },
    openapi_extra=allow(),
)
def export_pack(domain_id: str, number: VersionNumber, services: ServicesDep) -> Response:
    """The version's tensors with domain, version, backbone, hash and classes."""
    domain = services.core.domains.served(domain_id)
    state = services.core.versions.get(domain_id, number)
    pack = _pack(services, domain, state)
    filename = f"{domain.id}-{state.number}.safetensors"
    return Response(
        pack,
        media_type=PACK_TYPE,
        headers={
            "ETag": f'"{state.sha256}"',
            "Content-Disposition": f'attachment; filename="{filename}"',
        },
    )


def _pack(services: Services, domain: Domain, state: DomainState) -> bytes:
    """A version as a file, its tensors checked.

    Raises
    ------
    ConflictError
        `version_quarantined`, `broken_state`.
    """
    if state.quarantined is not None:
        raise ConflictError(
            f"Version {state.number} of '{domain.id}' is quarantined.", code="version_quarantined"
        )
    facts = {
        "domain": domain.id,
        "name": domain.name,
        "version": str(state.number),
        "backbone": state.backbone,
        "label_scheme": domain.label_scheme,
    }
    if state.signature is not None:
        facts["signature"] = json.dumps(state.signature.to_json())
    spec = services.segmenter.spec_of(state.backbone)
    if spec is not None:
        facts["classes"] = ",".join(spec.classes)
    try:
        return write_pack(
            services.core.versions.state_bytes(state.sha256), facts, sha256=state.sha256
        )
    except BrokenStateError as error:
        raise ConflictError(f"{state.ref} is refused: {error}.", code="broken_state") from error


@router.post(
    "/domains/import",
    summary="Import a version as a new domain",
    status_code=201,
    responses={201: {"headers": LOCATION}, **problems(400, 408, 409, 413, 415, 422, 429, 507)},
    openapi_extra=allow(**BODY),
)
def import_pack(
    services: ServicesDep,
    key: KeyDep,
    received: PackForm,
    response: Response,
) -> DomainBody:
    """A domain that serves the pack's state at once; it has no cases yet."""
    pack = _open_pack(received.upload("pack").path.read_bytes(), services)
    domain_id = received.text("id", pack.facts.get("domain", ""))
    services.core.domains.check_new_id(domain_id)
    name = received.text("name", pack.facts.get("name", domain_id))
    scheme = check_scheme(pack.facts.get("label_scheme", "normbank"))
    first = NewState.imported(pack.sha256, pack.backbone, pack.tensors, _signature_of(pack))
    domain = services.core.domains.create_from_state(
        domain_id, name, received.document("match"), scheme, first, actor=key.id
    )
    response.headers.update({"Location": f"/domains/{domain.id}", "ETag": etag(domain.revision)})
    return DomainBody.model_validate(domain)


def _signature_of(pack: Pack) -> Signature | None:
    """What the scans of the pack's domain look like, where it says so; InvalidError `bad_pack`."""
    written = pack.facts.get("signature")
    if written is None:
        return None
    try:
        return Signature.from_json(json.loads(written))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidError("The pack's signature cannot be read.", code="bad_pack") from error


def _open_pack(data: bytes, services: Services) -> Pack:
    """A pack of a backbone that this service has, the current or an older one.

    Raises
    ------
    InvalidError
        `bad_pack`, `other_backbone`.
    """
    segmenter = services.segmenter
    try:
        pack = read_pack(data)
        spec = segmenter.spec_of(pack.backbone)
        if spec is not None:
            State.from_bytes(pack.tensors, backbone=pack.backbone).check(spec, pack.backbone)
    except BrokenStateError as error:
        raise InvalidError(f"The pack is refused: {error}.", code="bad_pack") from error
    if spec is None:
        raise InvalidError(
            "The pack belongs to another backbone.",
            code="other_backbone",
            facts={"backbone": segmenter.backbone_sha256},
        )
    return pack
