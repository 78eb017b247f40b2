"""The client says what the API said, and follows a job whatever happens."""

from __future__ import annotations

import json

import httpx
import pytest
import typer
from typer.testing import CliRunner

from cli.client import ApiError, Client, UnreachableError
from cli.domains import repeat_flags
from cli.main import app
from cli.options import connect
from cli.output.files import scan_name

EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}


def client_of(answer) -> Client:
    return Client("http://test", "secret", transport=httpx.MockTransport(answer))


def job(state: str, progress: float) -> dict[str, object]:
    return {"id": "1", "state": state, "progress": progress, "step": "tuning", "eta_s": 3.0}


def test_a_refusal_carries_the_reason_the_code_and_the_facts():
    problem = {"title": "Unknown labels", "detail": "Ids outside the scheme.", "code": "unknown"}
    client = client_of(lambda _: httpx.Response(422, json={**problem, "ids": {"999": 12}}))
    with pytest.raises(ApiError, match=r'Ids outside the scheme\. \(422 unknown\) {"ids"'):
        client.get("/domains")


def test_no_service_is_an_error_that_says_how_to_start_one():
    with pytest.raises(UnreachableError, match="`normbank up` starts one"):
        Client("http://127.0.0.1:9", "secret").get("/livez")


@pytest.mark.parametrize("command", [("domains", "list"), ("adapt", "a"), ("upgrade",)])
def test_a_command_says_in_one_line_that_no_service_answers(command):
    ended = CliRunner().invoke(app, [*command, "--url", "http://127.0.0.1:9", "--key", "secret"])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == (
        "normbank: no service answers at http://127.0.0.1:9; `normbank up` starts one\n"
    )


def test_every_page_of_a_listing_is_read():
    def answer(request: httpx.Request) -> httpx.Response:
        if "cursor" in request.url.params:
            return httpx.Response(200, json={"items": [{"id": "b"}], "next_cursor": None})
        return httpx.Response(200, json={"items": [{"id": "a"}], "next_cursor": "2"})

    assert [one["id"] for one in client_of(answer).items("/domains")] == ["a", "b"]


def test_a_job_is_followed_by_its_events():
    events = [job("running", 0.5), job("succeeded", 1.0)]
    text = ": ping\n\n" + "".join(f"event: job\ndata: {json.dumps(one)}\n\n" for one in events)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/jobs/1/events"
        return httpx.Response(200, text=text, headers=EVENT_STREAM)

    assert list(client_of(answer).follow("1")) == events


def test_a_job_is_polled_where_its_events_break_off():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            text = f"data: {json.dumps(job('running', 0.5))}\n\n"
            return httpx.Response(200, text=text, headers=EVENT_STREAM)
        return httpx.Response(200, json=job("succeeded", 1.0))

    states = [state["state"] for state in client_of(answer).follow("1")]
    assert states == ["running", "succeeded"]


def test_a_job_is_polled_where_a_proxy_answers_in_place_of_the_events():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, html="<p>Please wait.</p>")
        return httpx.Response(200, json=job("succeeded", 1.0))

    assert [state["state"] for state in client_of(answer).follow("1")] == ["succeeded"]


def test_the_key_comes_from_the_data_folder_when_none_is_given(tmp_path, capsys):
    with pytest.raises(typer.Exit):
        connect("http://test", "", tmp_path)
    assert "no API key" in capsys.readouterr().err
    (tmp_path / "admin.key").write_text("nb_x_y\n")
    assert connect("http://test", "", tmp_path)


def test_a_flag_takes_all_the_values_a_shell_pattern_gives():
    typed = ["new", "--scans", "a", "b", "--name", "x", "--labels", "c", "d"]
    assert repeat_flags(typed, ("--scans", "--labels")) == [
        "new", "--scans", "a", "--scans", "b", "--name", "x", "--labels", "c", "--labels", "d"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "name"), [("a.nii.gz", "a"), ("b.1.NII", "b.1"), ("c.mgz", "c"), ("d.x", "d")]
)
def test_a_scan_is_named_without_its_kind(tmp_path, file, name):
    assert scan_name(tmp_path / file) == name
