"""The domains that come with a backbone, and what a new backbone does to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.local.builtin_domains import seed_builtin_domains
from models.packs import write_pack
from models.state import State
from normbank.entities import NewState, Recipe
from normbank.wiring import CoreServices
from tests.support.fake_engine import SPEC

OLD, NEW = "a" * 64, "b" * 64


def backbone(folder: Path, sha256: str) -> Path:
    """A backbone's folder with one pack."""
    pack = write_pack(State.initial(SPEC, sha256).to_bytes(), {"backbone": sha256})
    (folder / "states").mkdir(parents=True)
    (folder / "states" / "sim-t1w-3t.safetensors").write_bytes(pack)
    return folder


def test_a_new_backbone_brings_the_next_version_of_its_domains(
    core: CoreServices, tmp_path: Path
) -> None:
    old, new = backbone(tmp_path / "old", OLD), backbone(tmp_path / "new", NEW)
    for folder in (old, old, new, new):
        seed_builtin_domains(core, folder)
    assert [state.backbone for state in core.versions.of("sim-t1w-3t")] == [OLD, NEW]
    assert core.versions.active("sim-t1w-3t").number == 2
    seed_builtin_domains(core, old)
    assert core.versions.active("sim-t1w-3t").number == 2


def test_an_adapted_domain_goes_on_being_served_on_the_older_backbone(
    core: CoreServices, tmp_path: Path
) -> None:
    seed_builtin_domains(core, backbone(tmp_path / "old", OLD))
    job, _ = core.jobs.submit_adapt("sim-t1w-3t", Recipe(), min_cases=0)
    learnt = State(State.initial(SPEC, OLD).rows + 1, OLD)
    core.versions.publish(
        "sim-t1w-3t",
        state=NewState(learnt.sha256, OLD, "sim-t1w-3t@1", {}, {}, job.id, learnt.to_bytes()),
        promote=True,
    )
    new = backbone(tmp_path / "new", NEW)
    for _ in range(2):
        seed_builtin_domains(core, new)
    assert [state.backbone for state in core.versions.of("sim-t1w-3t")] == [OLD, OLD, NEW]
    assert core.versions.active("sim-t1w-3t").number == 2


def test_an_adapted_domain_stays_even_where_its_built_in_version_is_served(
    core: CoreServices, tmp_path: Path
) -> None:
    """Whoever adapted it has decided what is served, also by not promoting."""
    seed_builtin_domains(core, backbone(tmp_path / "old", OLD))
    job, _ = core.jobs.submit_adapt("sim-t1w-3t", Recipe(), min_cases=0)
    learnt = State(State.initial(SPEC, OLD).rows + 1, OLD)
    core.versions.publish(
        "sim-t1w-3t",
        state=NewState(learnt.sha256, OLD, "sim-t1w-3t@1", {}, {}, job.id, learnt.to_bytes()),
        promote=False,
    )
    seed_builtin_domains(core, backbone(tmp_path / "new", NEW))
    assert core.versions.active("sim-t1w-3t").number == 1


def test_an_archived_domain_stays_as_it_is(core: CoreServices, tmp_path: Path) -> None:
    seed_builtin_domains(core, backbone(tmp_path / "old", OLD))
    core.domains.archive("sim-t1w-3t", core.domains.get("sim-t1w-3t").revision)
    seed_builtin_domains(core, backbone(tmp_path / "new", NEW))
    assert len(core.versions.of("sim-t1w-3t")) == 1


@pytest.mark.parametrize("noticed", [True, False])
def test_a_rotten_built_in_state_is_restored_from_its_pack(
    core: CoreServices, tmp_path: Path, noticed: bool
) -> None:
    folder = backbone(tmp_path / "new", NEW)
    seed_builtin_domains(core, folder)
    (version,) = core.versions.of("sim-t1w-3t")
    good = core.versions.state_bytes(version.sha256)
    core.versions.mend(version.sha256, b"rotten")
    if noticed:
        core.versions.quarantine("sim-t1w-3t", 1, "it has rotted")
        assert core.domains.get("sim-t1w-3t").active_version is None
    seed_builtin_domains(core, folder)
    assert core.versions.active("sim-t1w-3t").number == 1
    assert core.versions.state_bytes(version.sha256) == good
    assert len(core.versions.of("sim-t1w-3t")) == 1
