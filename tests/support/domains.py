"""Domains, cases and states to test with; their bytes mean nothing."""

from __future__ import annotations

import hashlib

from normbank.entities import Domain, DomainState, NewCase, NewState, Recipe
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices

BACKBONE = "b" * 64


def new_case(blobs: BlobStore, content: str) -> NewCase:
    """A case whose two files are stored."""
    return NewCase(
        scan_sha256=blobs.put_bytes(f"scan {content}".encode()),
        labels_sha256=blobs.put_bytes(f"labels {content}".encode()),
        scan_name="scan.nii.gz",
        labels_name="labels.nii.gz",
        label_scheme="freesurfer",
        structures=("thalamus", "caudate"),
        shape=(160, 192, 192),
        spacing_mm=(1.0, 0.9, 1.2),
    )


def new_state(content: str = "state", job_id: str | None = None) -> NewState:
    tensors = content.encode() * 100
    return NewState(
        sha256=hashlib.sha256(tensors).hexdigest(),
        backbone=BACKBONE,
        parent=None,
        recipe=Recipe().to_json(),
        metrics={"after": {"thalamus": 0.9}},
        job_id=job_id,
        tensors=tensors,
    )


def new_domain(
    core: CoreServices, blobs: BlobStore, domain_id: str = "site-a", cases: int = 4
) -> Domain:
    """A domain with cases and without a version."""
    made = [new_case(blobs, f"{domain_id} {n}") for n in range(cases)]
    return core.domains.create(domain_id, "Site A", {}, "freesurfer", (), made)


def ready_domain(core: CoreServices, blobs: BlobStore, domain_id: str = "site-a") -> DomainState:
    """A domain with cases whose version 1 is served."""
    new_domain(core, blobs, domain_id)
    return core.versions.publish(domain_id, state=new_state(f"first of {domain_id}"), promote=True)
