"""deploy/orthanc: the very files of the compose profile, run by the Orthanc of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from normbank.config import Settings
from normbank.imaging.scan import Limits
from normbank.pacs.check import check_pacs
from normbank.pacs.config import read_pacs_file
from tests.support.orthanc import PASSWORD, USER, needs_orthanc, running_orthanc

FOLDER = Path(__file__).parents[2] / "deploy" / "orthanc"
OF_THE_CONTAINER = ("DicomPort", "HttpPort", "StorageDirectory", "IndexDirectory")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHANC_USER", USER)
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)


@needs_orthanc
def test_the_pacs_file_fits_the_orthanc_of_the_same_folder() -> None:
    settings = json.loads((FOLDER / "orthanc.json").read_text())
    chosen = {key: value for key, value in settings.items() if key not in OF_THE_CONTAINER}
    pacs = read_pacs_file(FOLDER / "pacs.toml").get("orthanc")
    with running_orthanc(**{**chosen, "RemoteAccessAllowed": False}) as orthanc:
        here = pacs.model_copy(update={"dicomweb_url": orthanc.url})
        steps = list(check_pacs(here, Limits.of(Settings()), store=True))
        assert [step.ok for step in steps] == [True, True, None, None, True, True], steps
        assert "the listener follows it by Orthanc's list of changes" in steps[4].said


def test_the_file_is_watched_and_its_address_is_the_services_of_compose() -> None:
    (pacs,) = read_pacs_file(FOLDER / "pacs.toml").watched
    port = json.loads((FOLDER / "orthanc.json").read_text())["HttpPort"]
    assert pacs.dicomweb_url == f"http://orthanc:{port}/dicom-web"
