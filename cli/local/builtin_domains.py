"""Built-in domains: those whose states ship with a backbone."""

from __future__ import annotations

import logging
from pathlib import Path

from models.backbone import SHIPPED
from models.packs import Pack, read_pack
from normbank.entities import DomainState, NewState
from normbank.errors import NotFoundError
from normbank.wiring import CoreServices

log = logging.getLogger(__name__)

NAMES = {
    "sim-t1w-3t": "Simulated T1w, 3 T",
    "sim-t2w-3t": "Simulated T2w, 3 T",
    "sim-t1w-1p5t": "Simulated T1w, 1.5 T",
    "sim-pd-3t": "Simulated PD, 3 T",
    "sim-flair-3t": "Simulated FLAIR, 3 T",
}


def seed_builtin_domains(core: CoreServices, backbone_dir: Path | None = None) -> None:
    """Register the packs of a backbone's folder as domains; safe to run again.

    A pack's bytes mend what has rotted of them in the database, and lift its
    quarantine. A domain without a sound version on the pack's backbone gets the
    pack as its next version. It serves that unless somebody has adapted it: then it stays
    on the backbone that the adaptation was made for, and the pack is a candidate.

    Parameters
    ----------
    backbone_dir : holds `states/*.safetensors`; None: the shipped backbone
    """
    for path in sorted(((backbone_dir or SHIPPED) / "states").glob("*.safetensors")):
        _register(core, path.stem, read_pack(path.read_bytes()))


def _register(core: CoreServices, domain_id: str, pack: Pack) -> None:
    try:
        domain = core.domains.get(domain_id)
    except NotFoundError:
        name = NAMES.get(domain_id, domain_id)
        domain = core.domains.create(domain_id, name, {}, "freesurfer", ())
    if domain.archived:
        return
    _mend(core, domain_id, pack)
    versions = core.versions.of(domain_id)
    if any(v.backbone == pack.backbone and v.quarantined is None for v in versions):
        return
    adapted = any(version.job_id is not None for version in versions)
    state = NewState.imported(pack.sha256, pack.backbone, pack.tensors)
    core.versions.publish(domain_id, state=state, promote=not adapted, reason="built in")


def _mend(core: CoreServices, domain_id: str, pack: Pack) -> None:
    """Restore the versions that hold the pack, whose bytes were checked when it was read."""
    for version in core.versions.of(domain_id):
        if (version.sha256, version.backbone) != (pack.sha256, pack.backbone):
            continue
        if core.versions.mend(pack.sha256, pack.tensors):
            log.error("ALARM: a built-in state had rotted and is restored", extra=_named(version))
        if version.quarantined is not None:
            core.versions.lift_quarantine(domain_id, version.number)
            log.warning("a built-in state is accepted again", extra=_named(version))


def _named(version: DomainState) -> dict[str, str]:
    return {"state": version.ref}
