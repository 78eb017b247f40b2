"""Forms as the clients of the field really send them."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode

import httpx
import nibabel as nib
import numpy as np
import pytest

from tests.support.api import Api, nifti, pair

BOUNDARY = "normbank-test"
UMLAUT = "Müller^Kanarienvogel T1.nii.gz"
MIME = f"=?utf-8?B?{b64encode(UMLAUT.encode()).decode()}?="
QUOTED = UMLAUT.replace("ü", "%C3%BC").replace("^", "%5E").replace(" ", "%20")

Part = tuple[str, bytes]


def part(disposition: str, content: bytes, content_type: str = "") -> bytes:
    """A part with a Content-Disposition of one's own, which no client library writes."""
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


def post(api: Api, *parts: bytes, path: str = "/segment") -> httpx.Response:
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return api.admin.post(path, content=body, headers=headers)


NAMES = {
    "only RFC 5987": f"name=scan; filename*=utf-8''{QUOTED}",
    "only RFC 5987, spaced": f"name=\"scan\" ; FileName* = UTF-8'de'{QUOTED}",
    ".NET, both": f"name=scan; filename=\"{MIME}\"; filename*=utf-8''{QUOTED}",
    ".NET, MIME alone": f'name=scan; filename="{MIME}"',
    "bytes of UTF-8": f'name="scan"; filename="{UMLAUT}"',
    "a wrong ending": 'name="scan"; filename="scan.dcm"',
    "no ending": 'name="scan"; filename="blob"',
    "a name from Windows": 'name="scan"; filename="C:\\scans\\T1.NII"',
    "an empty name": 'name="scan"; filename=""',
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_scan_is_taken_whatever_its_file_is_called(api: Api, kind: str) -> None:
    api.add_domain()
    answer = post(api, part(NAMES[kind], nifti()))
    assert answer.status_code == 200, answer.text


def test_a_file_without_a_name_is_known_by_its_content_type(api: Api) -> None:
    api.add_domain()
    typed = part('name="scan"', nifti(), "application/octet-stream")
    assert post(api, typed).status_code == 200
    for content_type in ("", "text/plain; charset=utf-8"):
        answer = post(api, part('name="scan"', nifti(), content_type))
        assert (answer.status_code, answer.json()["code"]) == (422, "not_a_file")
        assert "content type" in answer.json()["detail"]


def mgh() -> bytes:
    data = np.zeros((40, 40, 40), np.float32)
    data[10:30] = 5
    return bytes(nib.MGHImage(data, np.diag([2.0, 2, 2, 1])).to_bytes())


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (nifti(), ".nii.gz"),
        (gzip.decompress(nifti()), ".nii"),
        (mgh(), ".mgh"),
        (gzip.compress(mgh(), mtime=0), ".mgz"),
    ],
)
def test_a_case_is_stored_under_the_kind_that_it_is(api: Api, content: bytes, kind: str) -> None:
    fields = {"id": "new", "name": "New", "label_scheme": "freesurfer"}
    texts = [part(f'name="{name}"', value.encode()) for name, value in fields.items()]
    labels = part('name="labels"; filename="x.mgz"', pair()[1][1][1])
    scan = part('name="scans"; filename="x.json"', content)
    answer = post(api, *texts, scan, labels, path="/domains")
    assert answer.status_code == 201, answer.text
    case = api.core.cases.of("new")[0]
    assert (case.scan_name, case.labels_name) == ("scan" + kind, "labels.nii.gz")


def test_an_empty_text_counts_as_left_out(api: Api) -> None:
    api.add_domain()
    scan = part('name="scan"; filename="a.nii"', nifti())
    empty = [part('name="domain"', b""), part('name="sidecar"', b"")]
    answer = post(api, scan, *empty)
    assert (answer.status_code, answer.headers["X-Normbank-Domain"]) == (200, "drawn")
    spaces = post(api, scan, part('name="domain"', b"  "))
    assert spaces.headers["X-Normbank-Domain"] == "drawn"
    both = post(api, scan, part('name="domain"', b""), part('name="domain"', b"drawn"))
    assert both.status_code == 200
    required = post(api, part('name="id"', b""), part('name="name"', b"x"), path="/domains")
    assert (required.status_code, required.json()["code"]) == (422, "missing_field")


def test_a_file_input_that_nobody_filled_counts_as_left_out(api: Api) -> None:
    """A browser sends it with an empty name and as octets."""
    api.add_domain()
    untouched = part('name="sidecar"; filename=""', b"", "application/octet-stream")
    scan = part('name="scan"; filename="a.nii"', nifti())
    assert post(api, scan, untouched).status_code == 200
    answer = post(api, part('name="scan"; filename=""', b"", "application/octet-stream"))
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_field")


SIDECAR = json.dumps({"Manufacturer": "Siemens"})
SIDECAR_PARTS = {
    "a text with a byte order mark": part('name="sidecar"', SIDECAR.encode("utf-8-sig")),
    "a file with a byte order mark": part(
        f"name=sidecar; filename*=utf-8''{QUOTED}", SIDECAR.encode("utf-8-sig")
    ),
    "typed and without a name": part('name="sidecar"', SIDECAR.encode(), "application/json"),
    "called otherwise": part('name="sidecar"; filename="sidecar.txt"', SIDECAR.encode()),
}


@pytest.mark.parametrize("kind", SIDECAR_PARTS)
def test_a_sidecar_is_read_however_it_is_sent(api: Api, kind: str) -> None:
    api.add_domain("plain")
    api.add_domain("siemens", match={"Manufacturer": "Siemens"}, states=(2.0,))
    answer = post(api, part('name="scan"; filename="a.nii"', nifti()), SIDECAR_PARTS[kind])
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Normbank-Domain"] == "siemens"


def nested(levels: int) -> bytes:
    return b'{"a": ' + b"[" * (levels - 1) + b"1" + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("sidecar", [SIDECAR.encode("utf-16"), nested(9), nested(480), b"[1]"])
def test_a_sidecar_that_cannot_be_used_is_422(api: Api, sidecar: bytes) -> None:
    api.add_domain("siemens", match={"a": "Siemens"})
    api.add_domain("plain", states=(2.0,))
    scan = part('name="scan"; filename="a.nii"', nifti())
    answer = post(api, scan, part('name="sidecar"; filename="a.json"', sidecar))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_json")


def test_a_sidecar_of_eight_levels_is_read(api: Api) -> None:
    api.add_domain("ones", match={"a": 1})
    api.add_domain("plain", states=(2.0,))
    scan = part('name="scan"; filename="a.nii"', nifti())
    answer = post(api, scan, part('name="sidecar"; filename="a.json"', nested(8)))
    assert answer.headers["X-Normbank-Domain"] == "ones"


@pytest.mark.parametrize("kind", NAMES)
def test_no_part_of_a_clients_name_reaches_a_log_or_an_answer(
    api: Api, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.add_domain()
    caplog.set_level("DEBUG")
    for content in (nifti(), b"no image"):
        answer = post(api, part(NAMES[kind], content))
        assert "Kanarienvogel" not in answer.text + str(answer.headers)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("app")]
    assert "Kanarienvogel" not in "\n".join(ours)
