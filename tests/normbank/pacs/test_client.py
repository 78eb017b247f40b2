"""The DICOMweb client against a real Orthanc."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from normbank.errors import NormbankError, StoreRejectedError
from normbank.imaging.scan import Limits
from normbank.pacs.client import PacsClient
from normbank.pacs.config import Pacs
from tests.support.mr_series import CANARY, SLICES, bright_seg, write_series
from tests.support.orthanc import Orthanc, needs_orthanc, running_orthanc

pytestmark = needs_orthanc


@pytest.fixture(scope="module")
def files(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series that the PACS has."""
    made = write_series(tmp_path_factory.mktemp("series"))
    orthanc.send(made)
    return made


@pytest.fixture(scope="module")
def uids(files: list[Path]) -> tuple[str, str]:
    """Its study and series."""
    header = dcmread(files[0], stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


@pytest.fixture
def pacs(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Pacs:
    return orthanc.pacs(monkeypatch)


def code_of(pacs: Pacs, limits: Limits, study: str, series: str, folder: Path) -> tuple[str, str]:
    """How a fetch ends: code and words of its error."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(NormbankError) as caught, PacsClient(pacs, limits) as client:
        client.fetch(study, series, folder)
    assert study not in str(caught.value)
    return caught.value.code, str(caught.value)


def test_a_series_comes_as_it_was_sent(
    pacs: Pacs, limits: Limits, files: list[Path], uids: tuple[str, str], tmp_path: Path
) -> None:
    heard: list[int] = []
    with PacsClient(pacs, limits) as client:
        found = client.series(*uids)
        assert client.fetch(*uids, tmp_path, on_instance=heard.append) == SLICES
    assert found is not None
    assert (found.modality, found.count) == ("MR", SLICES)
    assert heard == list(range(1, SLICES + 1))
    sent = {str(one.SOPInstanceUID): one.pixel_array for one in map(dcmread, files)}
    came = {str(one.SOPInstanceUID): one.pixel_array for one in map(dcmread, tmp_path.iterdir())}
    assert sent.keys() == came.keys()
    assert all(np.array_equal(sent[uid], came[uid]) for uid in sent)


def test_facts_are_the_scanners_and_nothing_of_the_patient(
    pacs: Pacs, limits: Limits, uids: tuple[str, str]
) -> None:
    with PacsClient(pacs, limits) as client:
        facts = client.header(*uids, client.instances(*uids)[0])
    assert facts["SeriesDescription"] == "t1 mprage"
    assert facts["ManufacturersModelName"] == facts["ManufacturerModelName"] == "Drawn 3T"
    assert (facts["MagneticFieldStrength"], facts["Rows"]) == (3.0, 112)
    assert facts["ImageType"] == ["ORIGINAL", "PRIMARY", "M", "ND"]
    assert facts["RepetitionTime"] == 2.3  # s, as in a sidecar: one language of rules
    assert CANARY not in repr(facts)
    assert not {"PatientID", "DeviceSerialNumber"} & set(facts)


def test_a_series_that_is_not_there_is_empty(pacs: Pacs, limits: Limits, tmp_path: Path) -> None:
    code, said = code_of(pacs, limits, generate_uid(), generate_uid(), tmp_path)
    assert code == "series_empty"
    assert "look at study and series" in said


def test_a_series_with_more_bytes_than_a_volume_is_refused(
    pacs: Pacs, limits: Limits, uids: tuple[str, str], tmp_path: Path
) -> None:
    small = dataclasses.replace(limits, max_volume_bytes=10_000)
    assert code_of(pacs, small, *uids, tmp_path)[0] == "too_large"


def test_a_wrong_password_is_said(
    orthanc: Orthanc,
    limits: Limits,
    uids: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pacs = orthanc.pacs(monkeypatch)
    monkeypatch.setenv("TEST_ORTHANC_PASSWORD", "another")
    code, said = code_of(pacs, limits, *uids, tmp_path)
    assert code == "pacs_refused"
    assert "401 Unauthorized: look at username_env and password_env" in said


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://127.0.0.1:9/dicom-web", "pacs_unreachable", "takes no connection"),
        ("http://no-such-host.invalid/rs", "pacs_unreachable", "host name that cannot be found"),
        ("https://127.0.0.1:{port}/dicom-web", "pacs_unreachable", "does not speak TLS"),
        ("http://127.0.0.1:{port}/app", "pacs_refused", "look at dicomweb_url"),
    ],
)
def test_a_wrong_address_is_said_in_words(
    orthanc: Orthanc,
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    code: str,
    said: str,
) -> None:
    pacs = orthanc.pacs(monkeypatch, dicomweb_url=url.format(port=orthanc.port))
    with pytest.raises(NormbankError) as caught, PacsClient(pacs, limits) as client:
        client.series(generate_uid(), generate_uid())
    assert caught.value.code == code
    assert said in str(caught.value)


def test_a_result_is_stored_in_the_study_and_found_again(
    pacs: Pacs, limits: Limits, orthanc: Orthanc, files: list[Path], uids: tuple[str, str]
) -> None:
    seg = bright_seg(files[0].parent)
    with PacsClient(pacs, limits) as client:
        place = (str(seg.SeriesInstanceUID), str(seg.SOPInstanceUID))
        assert not client.lists(uids[0], [place])
        client.store(uids[0], [seg])
        client.store(uids[0], [seg])  # the second time it is there already
        assert client.lists(uids[0], [place])
    assert orthanc.found("SEG") == [(uids[0], str(seg.SOPInstanceUID))]


def test_the_pacs_own_reason_for_a_refusal_is_told(
    pacs: Pacs, limits: Limits, files: list[Path]
) -> None:
    """Orthanc takes no object whose study is not the one of the request."""
    with pytest.raises(StoreRejectedError) as caught, PacsClient(pacs, limits) as client:
        client.store(generate_uid(), [bright_seg(files[0].parent)])
    assert "did not store the results: processing failure (failure reason 0110h)." in str(
        caught.value
    )


FORBIDDEN = """
function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  return method == 'GET'
end
"""
SWALLOWED = """
function ReceivedInstanceFilter(dicom, origin, info)
  return dicom.Modality == 'MR'
end
"""


@pytest.mark.parametrize(
    ("lua", "said"),
    [(FORBIDDEN, "403 Forbidden"), (SWALLOWED, "did not store the results|cannot be found there")],
)
def test_a_pacs_that_takes_no_results_rejects_them(
    limits: Limits,
    files: list[Path],
    uids: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    lua: str,
    said: str,
) -> None:
    monkeypatch.setattr("normbank.pacs.store.LISTED_WITHIN_S", 1.0)
    with running_orthanc(lua=lua) as orthanc:
        pacs = orthanc.pacs(monkeypatch)
        with pytest.raises(StoreRejectedError, match=said), PacsClient(pacs, limits) as client:
            client.store(uids[0], [bright_seg(files[0].parent)])
        assert orthanc.found("SEG") == []
