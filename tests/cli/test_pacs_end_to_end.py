"""From a scanner's C-STORE to a SEG in the same study, with no hand moved, whatever is killed."""

from __future__ import annotations

import gzip
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import highdicom as hd
import httpx
import numpy as np
import pydicom
import pytest
from sqlalchemy import create_engine, text

from cli.local.ownership import running_service
from normbank.dicom.codes import answered_structures
from simulate.atlas import template
from tests.support.api import read_nifti
from tests.support.dicom import CANARY, Phantom, as_bytes
from tests.support.orthanc import PASSWORD, USER, Orthanc, needs_orthanc, running_orthanc
from tests.support.pacs_service import write_pacs_file
from tests.support.up import Up, running

pytestmark = needs_orthanc

DOMAIN = "sim-t1w-3t"
WITHIN_S = 120.0
BIRTH_DATE = "19010203"
VICTIMS = ("api", "worker", "listener")


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as server:
        yield server


@pytest.fixture(scope="module")
def service(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("pacs")
    file = write_pacs_file(folder / "pacs.toml", orthanc, patience_s=300.0)
    with file.open("a") as opened:
        opened.write(f'\n[[pacs.route]]\ndomain = "{DOMAIN}"\n')
    settings = {
        "NORMBANK_PACS_FILE": str(file),
        "NORMBANK_LEASE_S": "6",
        "NORMBANK_SWEEP_S": "1",
        "TEST_ORTHANC_USER": USER,
        "TEST_ORTHANC_PASSWORD": PASSWORD,
    }
    with running(folder / "data", **settings) as up:
        yield up


class Scanner:
    """Sends the average of 152 heads, each time as another series.

    Parameters
    ----------
    orthanc : where to
    folder : for the files
    """

    def __init__(self, orthanc: Orthanc, folder: Path) -> None:
        self._orthanc, self._folder = orthanc, folder
        data, affine = template()
        data, affine = data[::2, ::2, ::2], affine @ np.diag([2, 2, 2, 1])  # fewer files
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        self._place = {
            "voxels": np.round(data / data.max() * 1000).astype(np.uint16),
            "row": (-1, 0, 0),  # the template runs to the right, to the front and up
            "column": (0, -1, 0),
            "spacing": (spacing[1], spacing[0], spacing[2]),
            "origin": (-affine[0, 3], -affine[1, 3], affine[2, 3]),
        }

    def send(self, number: int) -> list[Path]:
        images = Phantom(series=str(number), **self._place).images()
        folder = self._folder / str(number)
        folder.mkdir()
        paths = [folder / f"{index}.dcm" for index in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            image.SeriesDescription = f"t1 of {CANARY}"
            image.PatientBirthDate = BIRTH_DATE
            path.write_bytes(as_bytes(image))
        self._orthanc.send(paths)
        return paths


@pytest.fixture(scope="module")
def scanner(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Scanner:
    return Scanner(orthanc, tmp_path_factory.mktemp("scanner"))


def results_of(orthanc: Orthanc, sources: list[Path], modality: str = "SEG") -> list[str]:
    """Orthanc's ids of what was made of a series, by the images it refers to."""
    source = pydicom.dcmread(sources[0], stop_before_pixels=True).SeriesInstanceUID
    listed = [orthanc.get(f"/series/{one}").json() for one in orthanc.get("/series").json()]
    return [
        instance
        for series in listed
        if series["MainDicomTags"]["Modality"] == modality
        for instance in series["Instances"]
        if source in orthanc.get(f"/instances/{instance}/tags", simplify=True).text
    ]


def wait_for(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def jobs(service: Up) -> list[str]:
    """States of all jobs, oldest first."""
    url = running_service(service.data)["database_url"]
    engine = create_engine(url)
    with engine.connect() as connection:
        query = text("SELECT state FROM job WHERE kind = 'pacs' ORDER BY created_at")
        states = [str(row.state) for row in connection.execute(query)]
    engine.dispose()
    return states


def test_a_seg_and_a_report_come_back_and_say_what_the_api_says(
    service: Up, orthanc: Orthanc, scanner: Scanner
) -> None:
    sources = scanner.send(101)
    wait_for(lambda: jobs(service) == ["succeeded"])
    (seg,) = results_of(orthanc, sources)
    (report,) = results_of(orthanc, sources, "SR")
    content = orthanc.get(f"/instances/{seg}/file").content
    assert len(content) < 1_000_000
    drawn = hd.seg.segread(io.BytesIO(content))
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in sources]
    assert drawn.StudyInstanceUID == images[0].StudyInstanceUID
    assert drawn.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    (referenced,) = drawn.ReferencedSeriesSequence
    uids = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert uids == {image.SOPInstanceUID for image in images}
    answer = httpx.post(
        f"{service.url}/segment",
        headers={"X-API-Key": service.key},
        data={"domain": DOMAIN},
        files=[("scan", ("x", path.read_bytes())) for path in sources],
        timeout=120,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    ids = {s.label: number for number, s in answered_structures().items()}
    table = np.zeros(256, np.int16)
    for described in drawn.SegmentSequence:
        if described.SegmentNumber:
            table[described.SegmentNumber] = ids[described.SegmentLabel]
    upwards = sorted(images, key=lambda image: float(image.ImagePositionPatient[2]))
    instances = [image.SOPInstanceUID for image in upwards]
    pixels = drawn.get_pixels_by_source_instance(instances, combine_segments=True)
    labels = np.asarray(read_nifti(answer.content).dataobj)
    np.testing.assert_array_equal(table[pixels].transpose(2, 1, 0), labels)
    assert report


@pytest.mark.parametrize("victim", VICTIMS)
def test_whoever_is_killed_exactly_one_seg_comes_back(
    service: Up, orthanc: Orthanc, scanner: Scanner, victim: str
) -> None:
    before = len(jobs(service))
    process = service.server(victim)
    assert process is not None
    number = 200 + VICTIMS.index(victim)
    sources = scanner.send(number)
    if victim == "listener":
        process.kill()  # before it has told anybody
    else:
        wait_for(lambda: len(jobs(service)) > before and jobs(service)[-1] == "running")
        process.kill()
    wait_for(lambda: jobs(service)[before:] == ["succeeded"])
    assert len(results_of(orthanc, sources)) == 1


def test_a_pacs_that_is_away_for_a_while_gets_its_seg_once(
    service: Up, orthanc: Orthanc, scanner: Scanner
) -> None:
    before = len(jobs(service))
    sources = scanner.send(301)
    wait_for(lambda: len(jobs(service)) > before and jobs(service)[-1] == "running")
    orthanc.stop()
    time.sleep(8.0)  # longer than a try with its repetitions
    assert jobs(service)[-1] in ("queued", "running")
    orthanc.start()
    wait_for(lambda: jobs(service)[before:] == ["succeeded"])
    assert len(results_of(orthanc, sources)) == 1


def test_nothing_of_the_patient_is_left_behind(
    service: Up, orthanc: Orthanc, scanner: Scanner
) -> None:
    """After series of a PACS, uploads of every kind, and an API that is shot in the middle."""
    before = len(jobs(service))
    parts = [("scan", (CANARY, path.read_bytes())) for path in scanner.send(401)]
    wait_for(lambda: jobs(service)[before:] == ["succeeded"])
    ask = {"headers": {"X-API-Key": service.key}, "timeout": 120, "trust_env": False}

    def post(**headers: str) -> httpx.Response:
        request = {**ask, "headers": {**ask["headers"], **headers}}
        data = {"domain": DOMAIN}
        return httpx.post(f"{service.url}/segment", data=data, files=parts, **request)

    labels = gzip.decompress(post().content)
    assert post(Accept="application/dicom").status_code == 200
    job = post(Prefer="respond-async").json()["id"]
    wait_for(lambda: service.get(f"/jobs/{job}").json()["state"] == "succeeded")
    api = service.server("api")
    assert api is not None
    with ThreadPoolExecutor() as pool:
        cut_off = pool.submit(post)
        time.sleep(1.0)
        api.kill()
        assert isinstance(cut_off.exception(), httpx.HTTPError)
    wait_for(lambda: is_ready(service))
    texts = [labels, service.get("/metrics").content, service.get(f"/jobs/{job}").content]
    texts += [_unpacked(path) for path in sorted(service.data.rglob("*")) if path.is_file()]
    texts.append(service.errors.read_bytes())
    assert len(texts) > 500  # PostgreSQL's files, logs, blobs, the broker's
    for secret in SECRETS:
        assert not any(secret in content for content in texts), secret


def is_ready(service: Up) -> bool:
    with suppress(httpx.HTTPError):
        return service.get("/readyz").is_success
    return False


SECRETS = [word.encode() for word in (*CANARY.split("^"), "canary-1", "canary-2", BIRTH_DATE)]


def _unpacked(path: Path) -> bytes:
    with suppress(FileNotFoundError):  # PostgreSQL goes on
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    return b""
