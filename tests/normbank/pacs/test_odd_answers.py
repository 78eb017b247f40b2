"""What the client makes of answers that no sound PACS gives."""

from __future__ import annotations

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread

from normbank.errors import NormbankError, PacsRefusedError
from normbank.imaging.scan import Limits
from normbank.pacs.changes import QidoPolling, open_source
from normbank.pacs.check import tiny_picture
from normbank.pacs.client import PacsClient
from normbank.pacs.config import Pacs
from tests.support.odd_pacs import OddPacs, Reply, odd_pacs, parts, rows

HTML = Reply(200, b"<html>Sign in, CANARY</html>", "text/html")


def a_file() -> bytes:
    written = BytesIO()
    pydicom.dcmwrite(written, tiny_picture(), enforce_file_format=True)
    return written.getvalue()


def as_json(answer: object) -> Reply:
    return Reply(200, json.dumps(answer).encode(), "application/json")


def client_of(server: OddPacs, limits: Limits) -> PacsClient:
    return PacsClient(Pacs(name="odd", dicomweb_url=server.url), limits)


def fetched(server: OddPacs, limits: Limits, folder: Path) -> int:
    with client_of(server, limits) as client:
        return client.fetch("1.2", "1.3", folder)


def failed(server: OddPacs, limits: Limits, folder: Path) -> tuple[str, str]:
    with pytest.raises(NormbankError) as caught:
        fetched(server, limits, folder)
    assert "CANARY" not in str(caught.value)
    return caught.value.code, str(caught.value)


def test_fewer_instances_than_listed_are_incomplete(limits: Limits, tmp_path: Path) -> None:
    files = [a_file(), a_file()]
    with odd_pacs(instances=[rows(["1.1", "1.2", "1.3"])], series=[parts(files)]) as server:
        code, said = failed(server, limits, tmp_path)
    assert code == "series_incomplete"
    assert "lists 3 instances of the series and sent 2" in said


def test_a_file_without_preamble_gets_one(limits: Limits, tmp_path: Path) -> None:
    whole = a_file()
    bodies = [whole, whole[128:], whole[132:]]
    with odd_pacs(instances=[rows(["1", "2", "3"])], series=[parts(bodies)]) as server:
        assert fetched(server, limits, tmp_path) == 3
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {whole}
    assert dcmread(tmp_path / "000003.dcm").Rows == 8


def test_what_passes_is_tried_again(limits: Limits, tmp_path: Path) -> None:
    cut, whole = parts([a_file(), a_file()], whole=False), parts([a_file(), a_file()])
    listed = [Reply(503), rows(["1", "2"])]
    with odd_pacs(instances=listed, series=[cut, whole]) as server:
        assert fetched(server, limits, tmp_path) == 2
        assert len(server.asked) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_what_stays_away_is_unreachable_after_three_attempts(
    limits: Limits, tmp_path: Path
) -> None:
    with odd_pacs(instances=[Reply(502)]) as server:
        code, said = failed(server, limits, tmp_path)
        assert len(server.asked) == 3
    assert code == "pacs_unreachable"
    assert "answered 502 Bad Gateway" in said


def test_a_refusal_is_not_asked_for_again(limits: Limits, tmp_path: Path) -> None:
    with odd_pacs(instances=[Reply(403)]) as server:
        assert failed(server, limits, tmp_path)[0] == "pacs_refused"
        assert len(server.asked) == 1


@pytest.mark.parametrize("query", [HTML, Reply(200, b'{"a": 1}'), Reply(200, b'[{"0008": 3}]')])
def test_an_answer_that_is_no_dicom_json_is_said(
    limits: Limits, tmp_path: Path, query: Reply
) -> None:
    with odd_pacs(instances=[query]) as server:
        code, said = failed(server, limits, tmp_path)
    assert code == "pacs_refused"
    assert "is dicomweb_url the root" in said


def test_an_answer_that_is_no_multipart_is_said(limits: Limits, tmp_path: Path) -> None:
    with odd_pacs(instances=[rows(["1"])], series=[HTML]) as server:
        assert failed(server, limits, tmp_path)[0] == "pacs_refused"


def test_a_pacs_that_does_not_know_the_wildcard_is_asked_without(
    limits: Limits, tmp_path: Path
) -> None:
    answers = [Reply(406), parts([a_file()])]
    with odd_pacs(instances=[rows(["1"])], series=answers) as server:
        assert fetched(server, limits, tmp_path) == 1


def test_a_pacs_that_knows_no_pages_is_read_once(limits: Limits) -> None:
    with (
        odd_pacs(instances=[rows([f"1.{n}" for n in range(250)])]) as server,
        client_of(server, limits) as client,
    ):
        assert len(client.instances("1.2", "1.3")) == 250
        assert len(server.asked) == 2


def test_reasons_of_a_refused_object_are_told_in_words(limits: Limits) -> None:
    reasons = [{"00081197": {"vr": "US", "Value": [code]}} for code in (0x0122, 0xA712)]
    body = json.dumps({"00081198": {"vr": "SQ", "Value": reasons}}).encode()
    with (
        odd_pacs(studies=[Reply(409, body)]) as server,
        client_of(server, limits) as client,
        pytest.raises(NormbankError) as caught,
    ):
        client.store("1.2", [tiny_picture()])
    assert caught.value.code == "store_rejected"
    assert "it does not store this kind of object (SOP class) (failure reason 0122h)" in str(
        caught.value
    )
    assert "it is out of resources (failure reason A712h)" in str(caught.value)


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
def test_a_certificate_is_checked_with_the_ca_of_the_file(limits: Limits, tmp_path: Path) -> None:
    key, certificate, both = (tmp_path / name for name in ("key", "ca.pem", "both.pem"))
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    made = [*words.split(), "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *map(str, made)], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    with odd_pacs(tls=both, instances=[rows(["1.1"])]) as server:
        trusting = Pacs(name="odd", dicomweb_url=server.url, ca_file=certificate)
        with PacsClient(trusting, limits) as client:
            assert client.instances("1.2", "1.3") == ("1.1",)
        with pytest.raises(NormbankError) as caught, client_of(server, limits) as client:
            client.instances("1.2", "1.3")
    assert caught.value.code == "pacs_refused"
    assert "a certificate that is not trusted (self-signed certificate)" in str(caught.value)
    assert "name its CA as ca_file" in str(caught.value)


NO_LISTS = {
    "other": {},
    "list": [],
    "null": {"Last": None},
    "text": {"Last": "CANARY"},
}
NO_CHANGES = {
    "other": {},
    "endless": {"Changes": []},
    "change": {"Changes": [{}], "Done": True},
    "date": {
        "Changes": [
            {"ChangeType": "NewSeries", "ResourceType": "Series", "ID": "a", "Date": "CANARY"}
        ],
        "Done": True,
    },
}


@pytest.mark.parametrize("answer", NO_LISTS.values(), ids=NO_LISTS)
def test_what_answers_with_other_json_is_no_orthanc(limits: Limits, answer: object) -> None:
    with odd_pacs(last=[as_json(answer)]) as server, client_of(server, limits) as client:
        assert isinstance(open_source(client), QidoPolling)


@pytest.mark.parametrize("answer", NO_CHANGES.values(), ids=NO_CHANGES)
def test_a_list_of_changes_that_is_none_is_refused(limits: Limits, answer: object) -> None:
    replies = {"last": [as_json({"Last": 5})], "since": [as_json(answer)]}
    with odd_pacs(**replies) as server, client_of(server, limits) as client:
        source = open_source(client)
        with pytest.raises(PacsRefusedError) as caught:
            source.look(0)
    assert "CANARY" not in str(caught.value)


def test_a_list_of_changes_that_never_ends_is_left_for_the_next_look(limits: Limits) -> None:
    endless = as_json({"Changes": [], "Done": False})
    replies = {"last": [as_json({"Last": 5})], "since": [endless]}
    with odd_pacs(**replies) as server, client_of(server, limits) as client:
        assert not open_source(client).look(3).more


def test_what_orthanc_names_by_no_uid_is_left_out(limits: Limits) -> None:
    new = {"ChangeType": "NewSeries", "ResourceType": "Series", "Date": "20990101T101010"}
    page = {"Changes": [{**new, "ID": "a", "Seq": 3}], "Done": True}
    named = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "../../1.3?x"}
    found = [{"ParentStudy": "s", "ID": "s", "MainDicomTags": named}]
    replies = {"last": [as_json({"Last": 5})], "since": [as_json(page)], "bulk": [as_json(found)]}
    with odd_pacs(**replies) as server, client_of(server, limits) as client:
        assert open_source(client).look(0).seen == ()
