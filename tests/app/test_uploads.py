"""How uploads arrive: when they take a place, how many at once, how slowly, how often a field."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from app.http.errors import TooManyUploadsError
from app.http.gate import GateLimits, UploadGate
from normbank.config import Settings
from normbank.entities import Role
from normbank.errors import BusyError
from tests.support.api import Api, as_form, nifti, pair, serve, wait_until
from tests.support.fake_engine import FakeEngine

SCAN_PART = (
    b'--b\r\nContent-Disposition: form-data; name="scan"; filename="s"\r\n\r\n' + nifti()[:64]
)


def device_of(api: Api) -> FakeEngine:
    device = api.services.segmenter._device
    assert isinstance(device, FakeEngine)
    return device


def connect(api: Api) -> socket.socket:
    host, _, port = api.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def send_upload(
    api: Api,
    body: bytes,
    *,
    length: int = 100_000,
    path: str = "/segment",
    key: str = "",
    headers: str = "",
) -> socket.socket:
    """Send the head of an upload and as much of its body as is given."""
    connection = connect(api)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key or api.keys[Role.ADMIN]}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n"
        f"{headers}\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def answer_of(connection: socket.socket) -> str:
    """All that comes until the connection is closed."""
    text = ""
    with suppress(ConnectionResetError):  # of one who still writes, after the answer
        while data := connection.recv(65536):
            text += data.decode()
    return text


def arriving(api: Api) -> float:
    return api.services.gate.gauges()["uploads_arriving"]


def test_half_an_upload_takes_no_place_in_the_queue(api: Api) -> None:
    api.add_domain()
    with ExitStack() as stack:
        for _ in range(2 * device_of(api).places):
            stack.enter_context(send_upload(api, SCAN_PART))
        wait_until(lambda: api.spooled() == 2 * device_of(api).places)
        assert device_of(api).waiting == 0
        assert api.segment().status_code == 200
    wait_until(lambda: arriving(api) == 0)
    assert api.spooled() == 0


def test_a_queue_that_filled_meanwhile_refuses_the_whole_scan(api: Api) -> None:
    api.add_domain()
    device = device_of(api)
    whole = SCAN_PART[:-64] + nifti() + b"\r\n--b--\r\n"
    with send_upload(api, whole[:200], length=len(whole)) as connection:
        wait_until(lambda: arriving(api) == 1)
        device.gate.clear()
        with ThreadPoolExecutor(device.places) as pool:
            try:
                waiting = [pool.submit(api.segment) for _ in range(device.places)]
                wait_until(lambda: device.waiting == device.places)
                connection.sendall(whole[200:])
                head = connection.recv(65536).decode()
            finally:
                device.gate.set()
        assert head.startswith("HTTP/1.1 503")
        assert "retry-after: 7" in head.lower()
    assert [one.result().status_code for one in waiting] == [200] * device.places


PATHS: dict[str, tuple[str, str]] = {
    "a scan": ("/segment", ""),
    "a scan for a job": ("/segment", "Prefer: respond-async\r\n"),
    "a new domain": ("/domains", ""),
    "cases": ("/domains/drawn/cases", ""),
    "a pack": ("/domains/import", ""),
}


@pytest.fixture
def narrow_api(own_settings: Settings) -> Any:
    """Two uploads and 64 KiB of one key at once, three and 128 KiB in all."""
    limits = {
        "uploads": 3,
        "uploads_per_key": 2,
        "spool_bytes": 128 * 1024,
        "spool_bytes_per_key": 64 * 1024,
    }
    with serve(own_settings.model_copy(update=limits)) as api:
        api.make_keys()
        api.add_domain()
        yield api


def test_one_key_cannot_send_more_at_once_than_it_may(narrow_api: Api) -> None:
    api = narrow_api
    begin = b'--b\r\nContent-Disposition: form-data; name="'
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(send_upload(api, begin, length=1000))
        wait_until(lambda: arriving(api) == 2)
        for path, headers in PATHS.values():
            expect = f"Expect: 100-continue\r\n{headers}"
            with send_upload(api, b"", length=1000, path=path, headers=expect) as connection:
                answer = answer_of(connection)
            assert answer.startswith("HTTP/1.1 429"), path
            assert "too_many_uploads" in answer
            assert "retry-after: 5" in answer.lower()
        other = {"key": api.keys[Role.SEGMENT], "length": 1000}
        stack.enter_context(send_upload(api, begin, **other))
        wait_until(lambda: arriving(api) == 3)
        assert api.admin.get("/domains").status_code == 200
        with send_upload(api, b"", headers="Expect: 100-continue\r\n", **other) as connection:
            answer = answer_of(connection)
        assert answer.startswith("HTTP/1.1 503")
        assert "uploads_full" in answer
    wait_until(lambda: arriving(api) == 0)
    assert api.segment().status_code == 200


def test_one_key_cannot_fill_the_disk(narrow_api: Api) -> None:
    api = narrow_api
    large, scan = gzip.decompress(nifti())[:50_000], SCAN_PART[:-64]
    with send_upload(api, scan + large, length=60_000):
        wait_until(lambda: api.services.gate.gauges()["spooled_bytes"] > 50_000, 3)
        expect = "Expect: 100-continue\r\n"
        with send_upload(api, b"", length=40_000, headers=expect) as declared:
            assert answer_of(declared).startswith("HTTP/1.1 429")
        with connect(api) as undeclared:
            undeclared.sendall(
                f"POST /segment HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.keys[Role.ADMIN]}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n"
                f"\r\n{len(scan + large):x}\r\n".encode()
                + scan
                + large
                + b"\r\n0\r\n\r\n"
            )
            assert undeclared.recv(65536).startswith(b"HTTP/1.1 429")
    wait_until(lambda: api.services.gate.gauges()["spooled_bytes"] == 0)
    assert api.spooled() == 0


def test_bytes_count_until_the_files_are_gone_and_uploads_until_they_are_whole() -> None:
    gate = UploadGate(GateLimits(uploads=3, uploads_per_key=1, bytes=15, bytes_per_key=10))
    with gate.enter("a", 10) as first:
        first.add(6)
        first.is_whole()
        assert gate.gauges() == {"uploads_arriving": 0.0, "spooled_bytes": 6.0}
        with gate.enter("a", 4) as second, pytest.raises(TooManyUploadsError):
            second.add(5)
        with pytest.raises(TooManyUploadsError), gate.enter("a", 5):
            pass
        with pytest.raises(BusyError) as full, gate.enter("b", 10):
            pass
        assert full.value.code == "uploads_full"
    with gate.enter("b", 10):
        pass
    assert gate.gauges() == {"uploads_arriving": 0.0, "spooled_bytes": 0.0}


SILENT = {"upload_patience_s": 0.3}
SLOW = {"upload_patience_s": 0.3, "least_upload_bytes_per_s": 10_000}
LATE = {"receive_timeout_s": 0.3}


@pytest.mark.parametrize("limits", [SILENT, SLOW, LATE])
def test_an_upload_that_is_too_slow_is_408_and_the_connection_ends(
    own_settings: Settings, limits: dict[str, float]
) -> None:
    with serve(own_settings.model_copy(update=limits)) as api:
        api.make_keys()
        ended = threading.Event()
        with send_upload(api, SCAN_PART) as connection:

            def dribble() -> None:
                while limits is not SILENT and not ended.wait(0.02):
                    try:
                        connection.sendall(b"0")
                    except OSError:
                        return

            sender = threading.Thread(target=dribble)
            sender.start()
            answer = answer_of(connection)
            ended.set()
            sender.join()
        assert answer.startswith("HTTP/1.1 408")
        assert "upload_timeout" in answer
        assert "connection: close" in answer.lower()
        assert (arriving(api), api.spooled()) == (0, 0)


def test_an_upload_that_is_fast_enough_may_take_longer_than_its_patience(
    own_settings: Settings,
) -> None:
    limits = {"upload_patience_s": 0.3, "least_upload_bytes_per_s": 100}
    with serve(own_settings.model_copy(update=limits)) as api:
        api.make_keys()
        api.add_domain()
        whole = SCAN_PART[:-64] + nifti() + b"\r\n--b--\r\n"
        with send_upload(api, whole[:100], length=len(whole)) as connection:
            pause = threading.Event()
            for start in range(100, 300, 20):
                pause.wait(0.06)
                connection.sendall(whole[start : start + 20])
            connection.sendall(whole[300:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("path", "name"), [("/segment", "scan"), ("/segment", "sidecar"), ("/domains", "match")]
)
def test_one_part_too_many_is_refused_where_it_begins(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    monkeypatch.setattr("app.http.middleware.LINGER_S", 0.1)
    part = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode()
    with send_upload(api, part + nifti() + b"\r\n" + part, path=path) as connection:
        answer = answer_of(connection)  # though nothing of the second has come
    assert answer.startswith("HTTP/1.1 422")
    assert "repeated_field" in answer


def counted(api: Api, path: str, status: int) -> float:
    value = api.services.telemetry.registry.get_sample_value(
        "normbank_requests_total", {"method": "POST", "route": path, "status": str(status)}
    )
    return value or 0.0


def texts(count: int, size: int) -> list[tuple[str, tuple[None, bytes]]]:
    return [("structures", (None, b"x" * size))] * count


@pytest.mark.parametrize(("count", "status"), [(4, 422), (5, 413)])
def test_the_texts_of_a_form_are_capped_together(api: Api, count: int, status: int) -> None:
    fields = [("id", (None, b"new")), *texts(count, 250 * 1024)]
    answer = api.admin.post("/domains", files=fields)
    assert answer.status_code == status, answer.text
    if status == 413:
        assert answer.json()["limit_bytes"] == 1024 * 1024


def test_fields_that_come_in_numbers_may_be_repeated(api: Api) -> None:
    fields = {"id": "new", "name": "New", "label_scheme": "freesurfer"}
    parts: list[Any] = [*pair(0), *pair(1), *((n, (None, v.encode())) for n, v in fields.items())]
    parts += [("structures", (None, name)) for name in (b"hippocampus", b"amygdala")]
    assert api.admin.post("/domains", files=parts).status_code == 201


def leave_while(api: Api, ready: Callable[[], bool]) -> None:
    """Send a whole scan, and go away once something holds."""
    whole = SCAN_PART[:-64] + nifti() + b"\r\n--b--\r\n"
    with send_upload(api, whole, length=len(whole)):
        wait_until(ready)


def test_a_client_that_leaves_frees_its_place_and_leaves_nothing(api: Api) -> None:
    api.add_domain()
    device, before = device_of(api), counted(api, "/segment", 499)
    device.gate.clear()
    try:
        leave_while(api, lambda: device.waiting == 1)
        wait_until(lambda: device.waiting == 0, timeout_s=1.0)
        wait_until(lambda: counted(api, "/segment", 499) == before + 1)
    finally:
        device.gate.set()
    assert (api.spooled(), api.stored_blobs()) == (0, 0)
    traffic = api.core.segmentations.traffic("drawn")
    assert (traffic.count, traffic.errors) == (0, 0)


def test_more_than_is_ever_taken_is_413_and_not_try_again(own_settings: Settings) -> None:
    with serve(own_settings.model_copy(update={"spool_bytes_per_key": 100_000})) as api:
        api.make_keys()
        asks_first = "Expect: 100-continue\r\n"
        with send_upload(api, b"", length=100_001, headers=asks_first) as connection:
            assert answer_of(connection).startswith("HTTP/1.1 413")


def test_labelled_cases_wait_for_a_turn_and_leave_the_other_requests_alone(
    own_settings: Settings,
) -> None:
    with serve(own_settings) as api, ThreadPoolExecutor(8) as pool:
        api.make_keys()
        api.add_domain()
        memory = api.core.memory
        with memory.reserved(memory.total_bytes):
            fields = [{"id": f"w{n}", "name": "W", "label_scheme": "freesurfer"} for n in range(6)]
            asked = [
                pool.submit(api.admin.post, "/domains", files=[*as_form(one), *pair(number)])
                for number, one in enumerate(fields)
            ]
            wait_until(lambda: len(memory._waiting) == 2)
            wait_until(lambda: api.services.gate.gauges()["spooled_bytes"] > 0)
            assert api.client(Role.MONITOR).get("/domains").status_code == 200
            assert len(memory._waiting) == 2
        assert {answer.result().status_code for answer in asked} == {201}


def test_a_client_that_leaves_while_it_waits_for_memory_frees_its_place(api: Api) -> None:
    api.add_domain()
    memory = api.core.memory
    with memory.reserved(memory.total_bytes):
        body = (
            b'--b\r\nContent-Disposition: form-data; name="scan"; filename="s"\r\n\r\n'
            + nifti()
            + b'\r\n--b\r\nContent-Disposition: form-data; name="domain"\r\n\r\ndrawn\r\n--b--\r\n'
        )
        connection = send_upload(api, body, length=len(body))
        wait_until(lambda: len(memory._waiting) == 1)
        connection.close()
        wait_until(lambda: len(memory._waiting) == 0, timeout_s=2)
        wait_until(lambda: device_of(api).waiting == 0, timeout_s=2)
    assert memory.reserved_bytes == 0
    assert api.stored_blobs() == 0
