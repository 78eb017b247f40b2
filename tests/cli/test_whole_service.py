"""The main job through the running service, with a worker that is shot on the way."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from cli.client import FINISHED, Client
from cli.local.builtin_domains import NAMES
from cli.local.processes import child_environment, python
from normbank.imaging.nifti import write_scan
from normbank.imaging.scan import Scan
from simulate.atlas import template
from tests.support.up import Up, running

RECIPE = {"steps": 12, "batch_size": 2, "validate_every": 6, "slice_stride": 12}
GOES_ON_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("whole") / "data"
    settings = {"NORMBANK_LEASE_S": "6", "NORMBANK_SWEEP_S": "1", "NORMBANK_BACKEND": "auto"}
    with running(folder, **settings) as up:
        yield up


@pytest.fixture(scope="module")
def client(service: Up) -> Iterator[Client]:
    with Client(service.url, service.key) as opened:
        yield opened


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The average of 152 heads; and the same elsewhere, in another contrast."""
    folder = tmp_path_factory.mktemp("scans")
    data, affine = template()
    bright = data.astype(np.float32)
    darker = np.roll(bright.max() * (bright / bright.max()) ** 0.9, (3, -2, 1), (0, 1, 2))
    paths = [folder / f"scan{number}.nii.gz" for number in (1, 2)]
    for path, voxels in zip(paths, (bright, darker), strict=True):
        path.write_bytes(write_scan(Scan(voxels, affine)))
    return paths


def wait_for(client: Client, job_id: str, until: Any, within_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        job = client.get(f"/jobs/{job_id}")
        if until(job):
            return dict(job)
        time.sleep(0.2)
    pytest.fail(f"still {job['state']} in attempt {job['attempt']}: {job['step']}")


def test_what_computes_was_measured_and_is_named(service: Up, client: Client) -> None:
    checks = {check["name"]: check for check in service.get("/readyz").json()["checks"]}
    engine = client.get("/backbone")["engine"]
    assert engine["backend"] in checks["engine"]["detail"]
    name = f"{engine['backend'].split()[0]} {engine['precision']}"
    assert engine["ms_per_slice"][name] <= 1.3 * min(engine["ms_per_slice"].values())
    assert len(engine["ms_per_slice"]) + len(engine["backends_refused"]) >= 2
    assert "ms a slice" in checks["engine"]["detail"]


def command(service: Up, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `normbank …` against the service in a folder."""
    return subprocess.run(
        python("cli", *arguments, "--url", service.url, "--key", service.key),
        cwd=folder,
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def labelled(service: Up, scans: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `normbank segment` wrote for two patients whose files share a name."""
    folder = tmp_path_factory.mktemp("two")
    for number, scan in enumerate(scans, 1):
        (folder / f"sub-0{number}" / "mri").mkdir(parents=True)
        shutil.copy(scan, folder / f"sub-0{number}" / "mri" / "T1")  # a name without an ending
    arguments = ["segment", "sub-01/mri/T1", "sub-02/mri/T1", "-o", "out", "--domain", "sim-t1w-3t"]
    ended = command(service, arguments, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def labels_in(folder: Path) -> list[Path]:
    return [folder / "out" / f"sub-0{number}_mri_T1_labels.nii.gz" for number in (1, 2)]


def test_two_patients_whose_files_share_a_name_are_segmented_into_one_folder(
    labelled: Path,
) -> None:
    first, second = (nibabel.load(path) for path in labels_in(labelled))
    assert first.shape == second.shape == template()[0].shape
    assert not np.array_equal(first.dataobj, second.dataobj)
    with (labelled / "out" / "volumes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [
        str(labelled / f"sub-0{number}" / "mri" / "T1") for number in (1, 2)
    ]
    assert all(5000 < float(row["left-thalamus_mm3"]) < 11000 for row in rows)
    assert [row["flags"] for row in rows] == ["", ""]


def test_an_adaptation_outlives_the_worker_that_is_killed_in_the_middle(
    service: Up, client: Client, scans: list[Path], labelled: Path
) -> None:
    before = client.segment(scans[0], "sim-t1w-3t", certify="true")["quality"]["logits_sha256"]
    fields = {"id": "ward-7", "name": "Ward 7", "label_scheme": "freesurfer"}
    client.send_cases("/domains", fields, scans, labels_in(labelled))
    job_id = client.call("POST", "/domains/ward-7/adapt", json=RECIPE).json()["id"]
    wait_for(client, job_id, lambda job: job["progress"] > 0.1, within_s=120)

    worker = service.worker()
    assert worker is not None
    worker.kill()
    killed_at = time.monotonic()
    job = wait_for(client, job_id, lambda job: job["attempt"] == 2, within_s=GOES_ON_WITHIN_S)
    assert time.monotonic() - killed_at < GOES_ON_WITHIN_S
    job = wait_for(client, job_id, lambda job: job["state"] in FINISHED, within_s=300)

    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
    assert [v["number"] for v in client.get("/domains/ward-7/versions")["items"]] == [1]
    metrics = client.get("/domains/ward-7/metrics")["versions"][0]
    assert len(metrics["candidates"]) == len(NAMES)
    assert metrics["after"]["mean_dice"] > 0
    client.change("POST", "ward-7", "/versions/1/promote")  # so short a run may be a candidate
    answer = client.segment(scans[0], "ward-7")
    assert (answer["domain"], answer["version"]) == ("ward-7", 1)
    after = client.segment(scans[0], "sim-t1w-3t", certify="true")["quality"]["logits_sha256"]
    assert after == before
