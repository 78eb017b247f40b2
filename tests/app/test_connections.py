"""Connections that ask nothing, or go on sending after their answer."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from uvicorn.importer import import_from_string

from app.http.connections import HttpConnection, raise_open_files_limit
from app.http.middleware import JSON_BODY_BYTES
from cli.local.launcher import api_command
from normbank.entities import Role
from tests.support.api import Api

HEAD_S = 0.4
MOST = 16


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.connections.HEAD_S", HEAD_S)
    monkeypatch.setattr("app.http.connections.MOST_WITHOUT_REQUEST", MOST)
    monkeypatch.setattr("app.http.middleware.LINGER_S", 0.1)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def connect(api: Api, stack: ExitStack, *sent: bytes) -> socket.socket:
    host, _, port = api.url.removeprefix("http://").partition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
    for data in sent:
        connection.sendall(data)
    return connection


LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_head_is_closed(
    api: Api, stack: ExitStack, sent: bytes
) -> None:
    assert connect(api, stack, sent).recv(100) == b""


def test_a_head_that_comes_byte_by_byte_wins_no_time(api: Api, stack: ExitStack) -> None:
    connection, began = connect(api, stack), time.monotonic()
    try:
        for byte in LIVEZ[:-2] * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
    except OSError:
        pass
    assert time.monotonic() - began < 3 * HEAD_S


def read_answer(answers: BinaryIO) -> bytes:
    """The status line of one answer, read to its end."""
    status, length = answers.readline(), 0
    while line := answers.readline().strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    answers.read(length)
    return status


def test_the_second_request_of_a_connection_must_come_too(api: Api, stack: ExitStack) -> None:
    connection = connect(api, stack, LIVEZ)
    answers = connection.makefile("rb")
    assert read_answer(answers).startswith(b"HTTP/1.1 200")
    connection.sendall(LIVEZ)
    assert read_answer(answers).startswith(b"HTTP/1.1 200")
    connection.sendall(LIVEZ[:-2])
    assert answers.read() == b""


def test_a_request_may_take_longer_than_its_head(api: Api, stack: ExitStack) -> None:
    head = b"PATCH /domains/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    key = f"X-API-Key: {api.keys[Role.ADMIN]}\r\nContent-Length: 2\r\n\r\n".encode()
    connection = connect(api, stack, head + key)
    time.sleep(2 * HEAD_S)
    connection.sendall(b"{}")
    assert connection.recv(65536).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_body_that_does_not_come_where_no_form_is_taken_is_408(
    api: Api, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("app.http.middleware.JSON_BODY_S", 0.3)
    head = f"PATCH /domains/x HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n".encode()
    key = f"X-API-Key: {api.keys[Role.ADMIN]}\r\nContent-Length: 200\r\n\r\n{{".encode()
    answer = connect(api, stack, head + key).makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 408")
    assert "upload_timeout" in answer


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_large_body_where_no_form_is_taken_is_413(api: Api, kind: str) -> None:
    answer = api.admin.patch(
        "/domains/x", content=b"x" * (JSON_BODY_BYTES + 1), headers={"Content-Type": kind}
    )
    assert answer.status_code == 413


def test_the_oldest_silent_connection_makes_room_and_others_are_answered(
    api: Api, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http.connections.HEAD_S", 60.0)
    asking = stack.enter_context(httpx.Client(base_url=api.url, trust_env=False, timeout=2))
    assert asking.get("/livez").status_code == 200
    silent = [connect(api, stack) for _ in range(3 * MOST)]
    assert asking.get("/livez").status_code == 200
    assert httpx.get(f"{api.url}/livez", trust_env=False, timeout=2).status_code == 200
    for connection in silent[: 2 * MOST]:
        assert connection.recv(100) == b""
    silent[-1].sendall(LIVEZ)
    assert silent[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_an_answer_before_the_body_has_come_ends_the_connection(api: Api, stack: ExitStack) -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
    answer = connect(api, stack, head).makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 401")
    assert "connection: close" in answer.lower()


def test_the_limit_of_open_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
    try:
        raise_open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_whoever_starts_the_server_does_so_with_these_connections() -> None:
    named = "--http=app.http.connections:HttpConnection"
    assert import_from_string(named.removeprefix("--http=")) is HttpConnection
    assert named in api_command("127.0.0.1", 8000)
    assert named in (Path(__file__).parents[2] / "Dockerfile").read_text()
