"""`/domains`: create, list, read, change, archive, and add cases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from app.bodies.domains import (
    CaseBody,
    CasesBody,
    DomainBody,
    DomainChangeBody,
    DomainPageBody,
    RegisteredDomainBody,
)
from app.http.auth import KeyDep, allow
from app.http.forms import Form, FormShape
from app.http.labelled import CaseTerms, CheckedPair, check_mapping, check_pairs, store_pairs
from app.http.negotiation import IfMatch, etag, require_revision
from app.http.openapi import ETAG, FILES, IMAGE, LOCATION, TEXT, form, problems
from app.services import Services, ServicesDep, receive_upload
from normbank.anatomy import LABEL_SCHEMES
from normbank.entities import Domain, Role
from normbank.errors import InvalidError
from normbank.services.annotations import check_scheme, check_structures
from normbank.services.domains import SLUG, check_name
from normbank.services.matching import validate_rules

router = APIRouter(tags=["domains"])

T = TypeVar("T")

EVERYBODY = (Role.SEGMENT, Role.MONITOR)

PAIRS = {"scans": "scan", "labels": "labels"}
NEW_DOMAIN = FormShape(
    texts=frozenset({"id", "name", "match", "label_scheme", "structures", "label_mapping"}),
    images=frozenset(PAIRS),
    dicom=frozenset(PAIRS),
    files=frozenset({"match", "label_mapping"}),
    repeated=frozenset({"structures"}),
    pairs=PAIRS,
)
NEW_CASES = FormShape(
    texts=frozenset({"structures", "label_mapping"}),
    images=frozenset(PAIRS),
    dicom=frozenset(PAIRS),
    files=frozenset({"label_mapping"}),
    repeated=frozenset({"structures"}),
    pairs=PAIRS,
)
PAIRS_BODY: dict[str, dict[str, Any]] = {
    "structures": {
        **TEXT,
        "description": "annotated ones, comma-separated; default: those present",
    },
    "label_mapping": {
        **TEXT,
        "description": "JSON: segment of a DICOM SEG, by label or number, to an id of the scheme; "
        "for those whose codes and labels say nothing",
    },
    "scans": {
        **FILES,
        "description": f"in the order of `labels`; {IMAGE}; or a `.zip` of a DICOM series. What "
        "comes as DICOM is kept as NIfTI, without its header",
    },
    "labels": {
        **FILES,
        "description": "each on its scan's grid, of the same kinds, or a DICOM SEG of the series; "
        "values within 1e-3 of a whole number are rounded",
    },
}
NEW_DOMAIN_BODY = form(
    ("id", "name", "label_scheme"),
    id={**TEXT, "pattern": SLUG.pattern},
    name=TEXT,
    match={**TEXT, "description": "JSON rules over header facts"},
    label_scheme={**TEXT, "enum": list(LABEL_SCHEMES)},
    **PAIRS_BODY,
)


AcceptDoubtful = Annotated[
    Literal["doubtful"] | None,
    Query(description="`doubtful`: take labels that seem not to be those of their scan"),
]


def _cases_body(shape: FormShape) -> Callable[..., AsyncIterator[Form]]:
    """A form with labelled cases, and a turn at reading them, which takes memory and a thread."""

    async def receive(request: Request, services: ServicesDep) -> AsyncIterator[Form]:
        async with receive_upload(request, services, shape) as form, services.case_checks:
            yield form

    return receive


NewDomainForm = Annotated[Form, Depends(_cases_body(NEW_DOMAIN), scope="function")]
NewCasesForm = Annotated[Form, Depends(_cases_body(NEW_CASES), scope="function")]


@router.post(
    "/domains",
    summary="Create a domain",
    status_code=201,
    responses={201: {"headers": LOCATION}, **problems(400, 408, 409, 413, 415, 422, 429, 507)},
    openapi_extra=allow(**NEW_DOMAIN_BODY),
)
def create_domain(
    services: ServicesDep,
    key: KeyDep,
    received: NewDomainForm,
    response: Response,
    accept: AcceptDoubtful = None,
) -> RegisteredDomainBody:
    """A new scanner and protocol, with its first labelled cases or none.

    Every pair is read and checked before anything is stored; what is wrong
    with one is answered with its number `pair`, from 0, and the `file`. Labels
    that cannot be those of their scan (mirrored, shifted, of one side, of
    somebody else …) are 422 `doubtful_labels` with `flags`, unless
    `?accept=doubtful`.
    """
    domain_id = received.text("id")
    services.core.domains.check_new_id(domain_id)
    name, match = received.text("name"), received.document("match")
    check_name(name)
    validate_rules(match)
    scheme = check_scheme(received.text("label_scheme"))
    structures = check_structures(received.texts("structures"))
    pairs = check_pairs(received, _terms(services, scheme, structures, received, accept))
    cases = tuple(pair.case for pair in pairs)
    domain = _store(
        services,
        pairs,
        lambda: services.core.domains.create(
            domain_id, name, match, scheme, structures, cases, actor=key.id
        ),
    )
    response.headers["Location"] = f"/domains/{domain.id}"
    return _registered(services, domain, response)


def _store(services: Services, pairs: Sequence[CheckedPair], record: Callable[[], T]) -> T:
    """Store the pairs' files and record them, or leave nothing behind."""
    files = [sha256 for pair in pairs for sha256 in (pair.scan.sha256, pair.labels.sha256)]
    return services.core.files.keep(files, lambda: store_pairs(pairs, services.core.blobs), record)


@router.post(
    "/domains/{domain_id}/cases",
    summary="Add labelled cases",
    status_code=201,
    responses=problems(400, 404, 408, 409, 413, 415, 422, 429, 507),
    openapi_extra=allow(**form(("scans", "labels"), **PAIRS_BODY)),
)
def add_cases(
    domain_id: str,
    services: ServicesDep,
    key: KeyDep,
    received: NewCasesForm,
    accept: AcceptDoubtful = None,
) -> CasesBody:
    """More cases for a domain, all or none, in its own label scheme."""
    domain = services.core.domains.served(domain_id)
    structures = check_structures(received.texts("structures")) or domain.structures
    pairs = check_pairs(
        received, _terms(services, domain.label_scheme, structures, received, accept)
    )
    if not pairs:
        raise InvalidError("Send at least one pair of scans and labels.", code="no_cases")
    cases = tuple(pair.case for pair in pairs)
    added = _store(services, pairs, lambda: services.core.cases.add(domain_id, cases, actor=key.id))
    return CasesBody(items=[CaseBody.model_validate(case) for case in added])


def _terms(
    services: Services, scheme: str, structures: Sequence[str], received: Form, accept: str | None
) -> CaseTerms:
    core, segmenter = services.core, services.segmenter
    return CaseTerms(
        scheme,
        structures,
        core.limits,
        core.memory,
        segmenter.spacing_mm,
        segmenter.looks(),
        mapping=check_mapping(received.document("label_mapping")),
        accept_doubtful=accept is not None,
    )


@router.get(
    "/domains/{domain_id}/cases",
    summary="A domain's labelled cases",
    responses=problems(404),
    openapi_extra=allow(Role.MONITOR),
)
def list_cases(domain_id: str, services: ServicesDep) -> CasesBody:
    """What was understood of each: grid, structures, volumes, doubts, hashes."""
    cases = services.core.cases.of(services.core.domains.served(domain_id).id)
    return CasesBody(items=[CaseBody.model_validate(case) for case in cases])


@router.get(
    "/domains/{domain_id}/cases/{case_id}",
    summary="One labelled case",
    responses=problems(404),
    openapi_extra=allow(Role.MONITOR),
)
def show_case(domain_id: str, case_id: str, services: ServicesDep) -> CaseBody:
    """What was understood of one case."""
    return CaseBody.model_validate(services.core.cases.get(domain_id, case_id))


@router.delete(
    "/domains/{domain_id}/cases/{case_id}",
    summary="Erase a labelled case",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409),
    openapi_extra=allow(),
)
def erase_case(domain_id: str, case_id: str, services: ServicesDep, key: KeyDep) -> None:
    """The case and its files are gone; versions that have learnt from it stay."""
    services.core.cases.erase(domain_id, case_id, actor=key.id)


@router.get(
    "/domains",
    summary="List domains",
    responses=problems(422),
    openapi_extra=allow(*EVERYBODY),
)
def list_domains(
    services: ServicesDep,
    response: Response,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DomainPageBody:
    """One page of the domains that are not archived, by id."""
    page = services.core.domains.page(cursor, limit)
    if page.next_cursor is not None:
        following = f"/domains?cursor={page.next_cursor}&limit={limit}"
        response.headers["Link"] = f'<{following}>; rel="next"'
    items = [DomainBody.model_validate(domain) for domain in page.items]
    return DomainPageBody(items=items, next_cursor=page.next_cursor)


@router.get(
    "/domains/{domain_id}",
    summary="One domain",
    responses={200: {"headers": ETAG}, **problems(404)},
    openapi_extra=allow(*EVERYBODY),
)
def show_domain(domain_id: str, services: ServicesDep, response: Response) -> RegisteredDomainBody:
    """A domain, with the ETag that its changes need."""
    return _registered(services, services.core.domains.served(domain_id), response)


@router.patch(
    "/domains/{domain_id}",
    summary="Change a domain",
    responses={200: {"headers": ETAG}, **problems(404, 408, 412, 422, 428)},
    openapi_extra=allow(),
)
def change_domain(
    domain_id: str,
    change: DomainChangeBody,
    services: ServicesDep,
    key: KeyDep,
    response: Response,
    if_match: IfMatch = None,
) -> RegisteredDomainBody:
    """Name, match rules or structures; what is left out stays."""
    revision = require_revision(if_match, services.core.domains.served(domain_id).revision)
    changes = change.model_dump(exclude_none=True)
    if "structures" in changes:
        changes["structures"] = check_structures(changes["structures"])
    changed = services.core.domains.update(domain_id, revision, **changes, actor=key.id)
    return _registered(services, changed, response)


@router.delete(
    "/domains/{domain_id}",
    summary="Archive a domain",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 412, 428),
    openapi_extra=allow(),
)
def archive_domain(
    domain_id: str, services: ServicesDep, key: KeyDep, if_match: IfMatch = None
) -> None:
    """Out of service and out of the list; its id stays taken, its history stays."""
    revision = require_revision(if_match, services.core.domains.served(domain_id).revision)
    services.core.domains.archive(domain_id, revision, actor=key.id)


def _registered(services: Services, domain: Domain, response: Response) -> RegisteredDomainBody:
    response.headers["ETag"] = etag(domain.revision)
    return RegisteredDomainBody.of(domain, services.core.domains.all())
