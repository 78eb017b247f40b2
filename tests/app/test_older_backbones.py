"""A new backbone arrives: who is served on which one, and with which bits."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.local.builtin_domains import seed_builtin_domains
from models.backbone import Backbone, load_backbone
from models.packs import read_pack
from normbank.config import Settings
from normbank.entities import NewState, Recipe
from tests.support.api import Api, serve, wait_until
from tests.support.networks import one_thread, random_state, save_tiny_backbone, small_spec
from tests.support.phantoms import phantom_case

BUILT_IN = ("one", "two")
SLOW_S = 300.0  # on a machine that has other things to do
# Nothing of the new one is like the old one: not its space, its classes or its width.
NEW_SPEC = {
    "name": "new",
    "classes": ("background", "putamen", *small_spec().classes[1:]),
    "down": (4, 8, 8, 12),
    "up": (8, 8, 4),
    "plane": "coronal",
    "spacing_mm": 6.0,
    "window": (40, 48, 32),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backbones")
    save_tiny_backbone(folder / "old", BUILT_IN)
    save_tiny_backbone(folder / "new", BUILT_IN, seed=7, **NEW_SPEC)
    return {name: folder / name for name in ("old", "new")}


@pytest.fixture(scope="module")
def old(folders: dict[str, Path]) -> Backbone:
    return load_backbone(folders["old"])


@pytest.fixture(scope="module")
def new(folders: dict[str, Path]) -> Backbone:
    return load_backbone(folders["new"])


@contextmanager
def running(settings: Settings, current: Path, *older: Path) -> Iterator[Api]:
    """A service of its own, as a release with these backbones starts."""
    changes = {
        "backbone_dir": current,
        "older_backbone_dirs": older,
        "max_upload_bytes": 2**26,
        "queue_scans": 8,
        "threads": 1,
    }
    with serve(settings.model_copy(update=changes), None) as api:
        seed_builtin_domains(api.core, current)
        wait_until(lambda: api.client(None).get("/readyz").status_code == 200)
        api.make_keys()
        yield api


def add_adapted(api: Api, domain: str, backbone: Backbone, seed: int) -> None:
    """A version that an adaptation on this backbone has made, served from now on."""
    if domain not in BUILT_IN:
        api.core.domains.create(domain, domain, {}, "freesurfer", ())
    job, _ = api.services.core.jobs.submit_adapt(domain, Recipe(), min_cases=0)
    state = random_state(backbone, seed)
    made = NewState(state.sha256, state.backbone, None, {}, {}, job.id, state.to_bytes())
    api.core.versions.publish(domain, state=made, promote=True)


def certified(api: Api, domain: str) -> dict[str, Any]:
    """The answer in JSON, with the hash of every score and the labels as bytes."""
    answer = api.segment(
        phantom_case(0).scan,
        fields={"domain": domain},
        headers={"Accept": "application/json"},
        params={"certify": "true"},
        timeout=SLOW_S,
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["X-Normbank-Backbone"] == body["backbone"]
    labels = gzip.decompress(api.admin.get(body["labels"], timeout=SLOW_S).content)
    return {**body, "labels": labels, "logits": body["quality"]["logits_sha256"]}


def bits(answer: dict[str, Any]) -> tuple[Any, ...]:
    return answer["logits"], answer["labels"], answer["state_sha256"], answer["volumes_mm3"]


def test_adapted_domains_answer_the_same_bits_after_an_upgrade_and_built_in_ones_move(
    own_settings: Settings, folders: dict[str, Path], old: Backbone, new: Backbone
) -> None:
    with running(own_settings, folders["old"]) as api:
        add_adapted(api, "ward", old, 21)
        add_adapted(api, "two", old, 22)
        before = {domain: certified(api, domain) for domain in ("one", "two", "ward")}
        assert {answer["backbone"] for answer in before.values()} == {old.sha256}
    with running(own_settings, folders["new"], folders["old"]) as api:
        after = {domain: certified(api, domain) for domain in before}
        for domain in ("two", "ward"):
            assert bits(after[domain]) == bits(before[domain])
            assert after[domain]["version"] == before[domain]["version"]
            assert after[domain]["backbone"] == old.sha256
        assert (after["one"]["version"], after["one"]["backbone"]) == (2, new.sha256)
        assert after["one"]["logits"] != before["one"]["logits"]
        assert [v.backbone for v in api.core.versions.of("two")] == [old.sha256] * 2 + [new.sha256]
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(lambda domain: certified(api, domain), after))
        for answer in together:
            assert bits(answer) == bits(after[answer["domain"]])
            record = api.core.segmentations.get(answer["id"])
            assert record.backbone == after[answer["domain"]]["backbone"]


def test_the_service_says_which_backbone_serves_whom(
    own_settings: Settings, folders: dict[str, Path], old: Backbone, new: Backbone
) -> None:
    with running(own_settings, folders["new"], folders["old"]) as api:
        alone = api.admin.get("/backbone").json()
        assert (alone["sha256"], alone["older"]) == (new.sha256, [])
        add_adapted(api, "ward", old, 21)
        api.services.segmenter.preload_all()
        body = api.admin.get("/backbone").json()
        assert (body["sha256"], body["plane"]) == (new.sha256, "coronal")
        assert body["older"] == [{"sha256": old.sha256, "name": "small", "domains_in_bank": 1}]
        assert body["engine"]["domains_in_bank"] == 3
        assert "normbank_bank_domains 3.0" in api.admin.get("/metrics").text
        listed = {one["id"]: one["backbone"] for one in api.admin.get("/domains").json()["items"]}
        assert listed == {"one": new.sha256, "two": new.sha256, "ward": old.sha256}
        assert api.admin.get("/domains/ward").json()["backbone"] == old.sha256
        scores = api.admin.get("/domains/ward/metrics").json()["versions"]
        assert [version["backbone"] for version in scores] == [old.sha256]


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_an_older_backbone_that_cannot_be_read_stops_nobody_else(
    own_settings: Settings,
    folders: dict[str, Path],
    old: Backbone,
    tmp_path: Path,
    harm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / "broken"
    if harm == "changed":
        broken.mkdir()
        data = bytearray((folders["old"] / "backbone.safetensors").read_bytes())
        data[-1] ^= 1
        (broken / "backbone.safetensors").write_bytes(data)
    with caplog.at_level(logging.ERROR), running(own_settings, folders["new"], broken) as api:
        add_adapted(api, "ward", old, 21)
        for _ in range(2):
            answer = api.segment(phantom_case(0).scan, fields={"domain": "ward"})
            assert (answer.status_code, answer.json()["code"]) == (409, "other_backbone")
        assert api.core.versions.get("ward", 1).quarantined is None
        assert certified(api, "one")["version"] == 1
    assert sum("ALARM" in record.message for record in caplog.records) == 1


def test_a_pack_names_its_backbone_and_travels_to_where_that_is_on_the_shelf(
    own_settings: Settings, folders: dict[str, Path], old: Backbone, new: Backbone
) -> None:
    def import_(api: Api, pack: bytes, domain: str) -> Any:
        files = {"pack": ("a.safetensors", pack)}
        return api.admin.post("/domains/import", files=files, data={"id": domain})

    with running(own_settings, folders["new"], folders["old"]) as api:
        add_adapted(api, "ward", old, 21)
        packs = {
            domain: api.admin.get(f"/domains/{domain}/versions/1/pack").content
            for domain in ("ward", "one")
        }
        assert read_pack(packs["ward"]).facts["backbone"] == old.sha256
        assert read_pack(packs["ward"]).facts["classes"] == ",".join(old.spec.classes)
        assert read_pack(packs["one"]).facts["backbone"] == new.sha256
        assert read_pack(packs["one"]).facts["classes"] == ",".join(new.spec.classes)
        made = import_(api, packs["ward"], "copy")
        assert (made.status_code, made.json()["backbone"]) == (201, old.sha256)
        assert bits(certified(api, "copy")) == bits(certified(api, "ward"))
    with running(own_settings, folders["old"]) as api:
        refused = import_(api, packs["one"], "other")
        assert (refused.status_code, refused.json()["code"]) == (422, "other_backbone")
        assert api.admin.get("/domains/other").status_code == 404


def test_an_adaptation_cannot_start_from_a_version_of_an_older_backbone(
    own_settings: Settings, folders: dict[str, Path], old: Backbone
) -> None:
    with running(own_settings, folders["new"], folders["old"]) as api:
        add_adapted(api, "ward", old, 21)
        answer = api.admin.post("/domains/one/adapt", json={"parent": "ward@1"})
        assert (answer.status_code, answer.json()["code"]) == (422, "other_backbone")
