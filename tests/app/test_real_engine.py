"""The application with its own engine, on a backbone that is small and coarse."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import torch
from sqlalchemy import Engine as Database

from app.engine.engine import Engine
from cli.local.builtin_domains import seed_builtin_domains
from models.backbone import load_backbone
from models.packs import read_states
from models.predict import Predictor
from normbank.config import Settings
from normbank.entities import NewState, Role
from normbank.errors import BusyError
from normbank.imaging.nifti import read_scan
from normbank.imaging.scan import Limits
from pipeline.segment import segment_scan
from simulate.phantom import head_affine
from tests.support.api import Api, serve, wait_until
from tests.support.networks import one_thread, save_tiny_backbone, small_spec
from tests.support.phantoms import SHAPE, SPACING_MM, phantom_case

DOMAINS = ("one", "two")
JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def real_api(shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("real")
    save_tiny_backbone(folder / "backbone", DOMAINS, slice_reach=2)
    changes = {
        "data_dir": folder,
        "backbone_dir": folder / "backbone",
        "max_upload_bytes": 2**26,
        "threads": 1,
    }
    with serve(shared_settings.model_copy(update=changes), None) as api:
        wait_until(lambda: api.client(None).get("/readyz").status_code == 200)
        yield api


@pytest.fixture
def api(real_api: Api, engine: Database) -> Api:
    real_api.make_keys()
    seed_builtin_domains(real_api.core, real_api.services.core.settings.backbone_dir)
    return real_api


def certified(api: Api, domain: str) -> dict[str, Any]:
    scan = phantom_case(0).scan
    answer = api.segment(
        scan, fields={"domain": domain}, headers=JSON, params={"certify": "true"}, timeout=300
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_scans_of_two_domains_at_once_get_the_answers_they_get_alone(api: Api) -> None:
    alone = {domain: certified(api, domain) for domain in DOMAINS}
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda domain: certified(api, domain), DOMAINS * 2))
    for answer in together:
        expected = alone[answer["domain"]]
        assert answer["volumes_mm3"] == expected["volumes_mm3"]
        assert answer["quality"] == expected["quality"]
    hashes = {answer["quality"]["logits_sha256"] for answer in alone.values()}
    assert len(hashes) == len(DOMAINS)


def test_an_answer_is_what_the_network_says_of_the_whole_scan(api: Api, tmp_path: Path) -> None:
    """Through the queue or not: slices are shown, and their scores averaged, in the same way."""
    settings = api.services.core.settings
    folder, cpu = settings.backbone_dir, torch.device("cpu")
    assert folder is not None
    backbone = load_backbone(folder)
    assert backbone.spec.slice_reach == 2
    predictor = Predictor(backbone, device=cpu, precision=torch.float32)
    row = predictor.bank.add(read_states(folder, backbone)["one"])
    digest = hashlib.sha256()

    def predict(slices: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
        domains = np.full(len(slices), row)
        return predictor.classes(slices, domains, digest, consecutive=consecutive)

    path = tmp_path / "scan.nii.gz"
    path.write_bytes(phantom_case(0).scan)
    found = segment_scan(read_scan(path, Limits.of(settings)), predict, backbone.spec)
    answer = certified(api, "one")
    assert answer["quality"]["logits_sha256"] == digest.hexdigest()
    labels = gzip.decompress(api.admin.get(answer["labels"]).content)
    answered = np.asarray(nib.Nifti1Image.from_bytes(labels).dataobj)
    np.testing.assert_array_equal(answered, found.ids)


def test_labels_lie_on_the_scans_own_grid(api: Api) -> None:
    fetched = api.admin.get(certified(api, DOMAINS[0])["labels"]).content
    found = nib.Nifti1Image.from_bytes(gzip.decompress(fetched))
    assert found.shape == SHAPE
    np.testing.assert_allclose(found.affine, head_affine(SHAPE, SPACING_MM))
    assert set(np.unique(found.dataobj)) <= {0, 10, 49, 17, 53, 18, 54}


def test_a_shipped_domain_travels_as_a_pack(api: Api) -> None:
    pack = api.admin.get(f"/domains/{DOMAINS[1]}/versions/1/pack").content
    assert len(pack) < 32_000
    files = {"pack": ("a.safetensors", pack)}
    answer = api.admin.post("/domains/import", files=files, data={"id": "copy"})
    assert answer.status_code == 201, answer.text
    original = api.core.versions.active(DOMAINS[1])
    assert api.core.versions.active("copy").sha256 == original.sha256


def test_a_rotten_state_is_refused_and_its_domain_is_not_ready(api: Api) -> None:
    """The engine checks the bytes when it first needs them."""
    sound = api.core.versions.active(DOMAINS[1])
    tensors = bytearray(api.core.versions.state_bytes(sound.sha256))
    tensors[-1] ^= 64
    api.core.domains.create("rotten", "rotten", {}, "freesurfer", ())
    state = NewState("a" * 64, sound.backbone, None, {}, {}, None, bytes(tensors))
    api.core.versions.publish("rotten", state=state, promote=True)
    answer = api.segment(phantom_case(0).scan, fields={"domain": "rotten"})
    assert (answer.status_code, answer.json()["code"]) == (409, "domain_not_ready")
    assert api.core.versions.get("rotten", 1).quarantined


def test_a_scan_without_a_brain_is_422(api: Api) -> None:
    data = np.zeros((80, 80, 80), np.float32)
    data[30:34, 30:34, 30:34] = np.random.default_rng(0).random((4, 4, 4))
    image = nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]))
    answer = api.segment(gzip.compress(image.to_bytes()), fields={"domain": DOMAINS[0]})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("no_brain", "empty_scan")


def test_the_backbone_answers_with_its_conventions(api: Api) -> None:
    body = api.admin.get("/backbone").json()
    assert body["classes"] == list(small_spec().classes)
    assert len(body["sha256"]) == 64
    assert body["engine"]["domains_in_bank"] >= 1


def test_clients_that_leave_free_places_and_processor_at_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is at work, the others wait for the device, which is slow here."""
    engine = api.services.segmenter._device
    batches, logits = [], Predictor.logits

    def slowly(*arguments: Any) -> torch.Tensor:
        batches.append(arguments)
        time.sleep(0.2)
        return logits(*arguments)

    monkeypatch.setattr(Predictor, "logits", slowly)
    leaving = httpx.Timeout(10, read=1.0)
    headers = {"X-API-Key": api.keys[Role.SEGMENT]}

    def leave(number: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{api.url}/segment",
                files={"scan": phantom_case(0).scan},
                data={"domain": DOMAINS[number % 2]},
                headers=headers,
                timeout=leaving,
                trust_env=False,
            )

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(leave, range(3)))
    wait_until(lambda: engine.waiting == 0, timeout_s=1.0)
    seen = len(batches)
    time.sleep(0.5)
    assert len(batches) <= seen + 1
    assert engine.ready
    assert not engine.failed
    monkeypatch.undo()
    assert certified(api, DOMAINS[0])


def test_a_full_queue_says_when_the_next_answer_is_due(real_api: Api) -> None:
    engine = real_api.services.segmenter._device
    assert isinstance(engine, Engine)
    places = real_api.services.core.settings.queue_scans + 1
    waits = []
    with ExitStack() as stack:
        for _ in range(places):
            stack.enter_context(engine.admit())
        for took_s in (2.5 * places, 1e4):
            for _ in range(40):
                engine._count_turn(took_s, places)
            with pytest.raises(BusyError) as full:
                engine.check_room()
            waits.append(full.value.retry_after_s)
    assert waits == [3, 60]
    for _ in range(100):
        engine._count_turn(1.0, 1)
