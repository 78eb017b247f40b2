"""Built-in domains: those whose states ship with a backbone."""

from __future__ import annotations

from pathlib import Path

from models.backbone import SHIPPED
from models.packs import Pack, read_pack
from normbank.entities import NewState
from normbank.errors import NotFoundError
from normbank.wiring import CoreServices

NAMES = {
    "sim-t1w-3t": "Simulated T1w, 3 T",
    "sim-t2w-3t": "Simulated T2w, 3 T",
    "sim-t1w-1p5t": "Simulated T1w, 1.5 T",
    "sim-pd-3t": "Simulated PD, 3 T",
    "sim-flair-3t": "Simulated FLAIR, 3 T",
}


def seed_builtin_domains(core: CoreServices, backbone_dir: Path | None = None) -> None:
    """Register the packs of a backbone's folder as domains; safe to run again.

    A domain whose versions all belong to other backbones gets the pack as its
    next version. It serves that unless somebody has adapted it: then it stays
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
    versions = core.versions.of(domain_id)
    registered = any(version.backbone == pack.backbone for version in versions)
    if registered or domain.archived:
        return
    adapted = any(version.job_id is not None for version in versions)
    state = NewState.imported(pack.sha256, pack.backbone, pack.tensors)
    core.versions.publish(domain_id, state=state, promote=not adapted, reason="built in")
