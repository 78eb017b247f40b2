"""What rots is told, refused and mended: labels in the store, states in the database."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from normbank.config import Settings
from normbank.entities import Role
from tests.support.api import Api, nifti, serve, wait_until


def rot_blob(api: Api, sha256: str, data: bytes) -> None:
    folder = api.core.settings.data_dir / "blobs" / "sha256" / sha256[:2]
    (folder / sha256[2:]).write_bytes(data)


def rot_state(api: Api, sha256: str) -> bytes:
    """Change one byte of a stored state; the good bytes."""
    good = api.core.versions.state_bytes(sha256)
    api.core.versions.mend(sha256, good[:-1] + bytes([good[-1] ^ 1]))
    return good


def metric(api: Api, name: str) -> float:
    lines = api.client(Role.MONITOR).get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.mark.parametrize("rotten", [b"rotten", b""])
def test_corrupt_labels_have_a_code_and_the_same_scan_brings_them_back(
    api: Api, rotten: bytes
) -> None:
    api.add_domain()
    record = api.segment(headers={"Accept": "application/json"}).json()
    path = f"/segmentations/{record['id']}/labels"
    good = api.admin.get(path).content
    sha256 = api.core.segmentations.get(record["id"]).labels_sha256
    assert sha256 is not None
    rot_blob(api, sha256, rotten)
    answer = api.admin.get(path)
    assert (answer.status_code, answer.json()["code"]) == (502, "corrupt_blob")
    assert metric(api, "normbank_corrupt_blobs") == 1
    assert metric(api, "normbank_corrupt_blob_reads_total") == 1
    assert api.segment().status_code == 200
    assert api.admin.get(path).content == good
    assert metric(api, "normbank_corrupt_blobs") == 0


def test_lost_labels_are_no_client_error(api: Api) -> None:
    api.add_domain()
    record = api.segment(headers={"Accept": "application/json"}).json()
    sha256 = api.core.segmentations.get(record["id"]).labels_sha256
    assert sha256 is not None
    api.core.blobs.delete(sha256)
    answer = api.admin.get(f"/segmentations/{record['id']}/labels")
    assert (answer.status_code, answer.json()["code"]) == (502, "corrupt_blob")


def test_a_quarantine_is_named_and_lifted_when_the_state_is_good_again(api: Api) -> None:
    (version,) = api.add_domain(states=(301.0,))
    good = rot_state(api, version.sha256)
    assert api.segment().json()["code"] == "domain_not_ready"
    wait_until(lambda: api.client(None).get("/readyz").status_code == 200)
    assert api.client(None).get("/readyz").json()["details"]["quarantined"] == "drawn@1"
    assert metric(api, "normbank_quarantined_versions") == 1
    assert metric(api, 'normbank_version_quarantined{domain="drawn",version="1"}') == 1

    still = api.admin.post("/domains/drawn/verify").json()["items"][0]
    assert still["quarantined"]
    api.core.versions.mend(version.sha256, good)
    lifted = api.admin.post("/domains/drawn/verify").json()["items"][0]
    assert (lifted["quarantined"], lifted["active"]) == (None, True)
    assert api.segment().status_code == 200
    assert api.client(None).get("/readyz").json()["details"]["quarantined"] == "none"
    assert "version.lift" in [event.action for event in api.core.audit.newest()]


def test_verifying_finds_what_is_served_from_memory_and_keeps_what_is_served_instead(
    api: Api,
) -> None:
    _, second = api.add_domain(states=(302.0, 303.0))
    assert api.segment().headers["X-Normbank-Version"] == "2"
    good = rot_state(api, second.sha256)
    checked = api.admin.post("/domains/drawn/verify").json()["items"]
    assert [bool(version["quarantined"]) for version in checked] == [False, True]
    assert api.segment().headers["X-Normbank-Version"] == "1"
    api.core.versions.mend(second.sha256, good)
    lifted = api.admin.post("/domains/drawn/verify").json()["items"]
    assert [version["active"] for version in lifted] == [True, False]
    tag = api.admin.get("/domains/drawn").headers["ETag"]
    promoted = api.admin.post("/domains/drawn/versions/2/promote", headers={"If-Match": tag})
    assert promoted.json()["active_version"] == 2


def test_only_an_admin_verifies_and_only_domains_that_exist(api: Api) -> None:
    api.add_domain()
    for role in (Role.SEGMENT, Role.MONITOR):
        assert api.client(role).post("/domains/drawn/verify").status_code == 403
    assert api.admin.post("/domains/other/verify").json()["code"] == "unknown_domain"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_507_and_recovers(own_settings: Settings, small_disk: Path) -> None:
    settings = own_settings.model_copy(update={"data_dir": small_disk, "min_free_bytes": 1 << 20})
    with serve(settings) as api:
        api.make_keys()
        api.add_domain()
        wait_until(lambda: api.client(None).get("/readyz").status_code == 200)
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (7 * (1 << 20) + (1 << 19)))
        ready = api.client(None).get("/readyz")
        assert ready.status_code == 503
        disk = next(c for c in ready.json()["checks"] if c["name"] == "disk")
        assert disk["detail"].endswith("MiB free, less than 1 MiB")
        answer = api.segment(nifti() + bytes(2 << 20))
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        assert (api.spooled(), api.stored_blobs()) == (0, 0)
        filler.unlink()
        assert api.segment().status_code == 200
        assert api.client(None).get("/readyz").status_code == 200


def test_a_full_disk_of_the_database_is_507_too(api: Api) -> None:
    from psycopg.errors import DiskFull
    from sqlalchemy.exc import OperationalError

    from app.http.errors import answer_error

    answer = answer_error(OperationalError("INSERT", {}, DiskFull("no space")), "id")
    assert answer.status_code == 507


def test_readiness_names_files_that_are_corrupt(api: Api) -> None:
    with api.core.database.begin() as connection:
        connection.execute(text("INSERT INTO corrupt_blob (sha256) VALUES ('00')"))
    assert api.client(None).get("/readyz").json()["details"]["corrupt_files"] == "1"
