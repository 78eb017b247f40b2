"""A thin client of the REST API (`api.md`); the other commands speak through it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from cli.output.terminal import fail
from normbank.config import get_settings
from normbank.entities import JobState

FINISHED = frozenset(state.value for state in JobState if state.finished)
POLL_S = 0.5
TIMEOUT = httpx.Timeout(30.0, read=1800.0, write=600.0)

Url = Annotated[
    str, typer.Option(envvar="NORMBANK_URL", help="Where the service answers.", show_default=True)
]
Key = Annotated[
    str,
    typer.Option(envvar="NORMBANK_KEY", help="API key; else DATA/admin.key.", show_default=False),
]
Data = Annotated[Path | None, typer.Option(help="The service's data folder, to find the key in.")]
DEFAULT_URL = "http://127.0.0.1:8000"


class ApiError(Exception):
    """An answer that is not a success; `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "error"))
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        said = str(self.problem.get("detail") or self.problem.get("title") or "no reason given")
        known = {"type", "title", "status", "detail", "instance", "code", "errors", "request_id"}
        facts = {name: value for name, value in self.problem.items() if name not in known}
        extra = f" {json.dumps(facts)}" if facts else ""
        errors = "".join(f"\n  {json.dumps(error)}" for error in self.problem.get("errors", ()))
        return f"{said} ({self.status} {self.code}){extra}{errors}"


class Client:
    """The API's calls as methods; every answer is JSON or bytes.

    Parameters
    ----------
    transport : replaces the network, as in httpx
    """

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT,
            transport=transport,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request; ApiError for an answer that is not a success."""
        try:
            answer = self._http.request(method, path, **request)
        except httpx.ConnectError:
            fail(f"no service answers at {self._http.base_url}; `normbank up` starts one")
        except httpx.HTTPError as error:
            fail(f"the service did not answer: {error or type(error).__name__}")
        if not answer.is_success:
            raise ApiError(answer.status_code, _problem(answer))
        return answer

    def get(self, path: str, **parameters: Any) -> Any:
        return self.call("GET", path, params=parameters).json()

    def items(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Every item of a listing, page after page."""
        parameters: dict[str, str] = {}
        while True:
            page = self.get(path, **parameters)
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            parameters = {"cursor": page["next_cursor"]}

    def segment(
        self, scan: Path, domain: str, *, sidecar: Path | None = None, **parameters: Any
    ) -> Mapping[str, Any]:
        """Segment one scan; the answer in JSON, with a link to the labels."""
        with ExitStack() as stack:
            files = [("scan", (scan.name, stack.enter_context(scan.open("rb"))))]
            if sidecar is not None:
                files.append(("sidecar", (sidecar.name, stack.enter_context(sidecar.open("rb")))))
            answer = self.call(
                "POST",
                "/segment",
                data={"domain": domain},
                files=files,
                params=parameters,
                headers={"Accept": "application/json"},
            )
        return dict(answer.json())

    def labels(self, segmentation_id: str) -> bytes:
        """The `.nii.gz` of an answered segmentation."""
        return self.call("GET", f"/segmentations/{segmentation_id}/labels").content

    def send_cases(
        self,
        path: str,
        fields: Mapping[str, str],
        scans: Sequence[Path],
        labels: Sequence[Path],
    ) -> Mapping[str, Any]:
        """POST pairs of scans and labels as multipart, in order."""
        with ExitStack() as stack:
            files = [
                (field, (path_.name, stack.enter_context(path_.open("rb"))))
                for field, paths in (("scans", scans), ("labels", labels))
                for path_ in paths
            ]
            # As parts without a name: with `data=` and no file httpx would not send multipart.
            texts = [(field, (None, text)) for field, text in fields.items()]
            return dict(self.call("POST", path, files=[*texts, *files]).json())

    def change(self, method: str, domain_id: str, path: str = "", **request: Any) -> Any:
        """A change of a domain as it is now: reads its ETag, sends it as If-Match."""
        tag = self.call("GET", f"/domains/{domain_id}").headers["ETag"]
        answer = self.call(
            method, f"/domains/{domain_id}{path}", headers={"If-Match": tag}, **request
        )
        return answer.json() if answer.content else None

    def follow(self, job_id: str) -> Iterator[Mapping[str, Any]]:
        """A job's states until it has finished: events, or polling where they break off."""
        for job in self._events(job_id):
            yield job
            if job["state"] in FINISHED:
                return
        while True:
            job = self.get(f"/jobs/{job_id}")
            yield job
            if job["state"] in FINISHED:
                return
            time.sleep(POLL_S)

    def _events(self, job_id: str) -> Iterator[Mapping[str, Any]]:
        try:
            with self._http.stream("GET", f"/jobs/{job_id}/events", timeout=60.0) as answer:
                if not answer.is_success:
                    return
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except httpx.HTTPError:
            return


def connect(url: str, key: str, data: Path | None) -> Client:
    """A client with the key that was given, or the one `normbank up` wrote."""
    if not key:
        key_file = (data or get_settings().data_dir) / "admin.key"
        if not key_file.is_file():
            fail(f"no API key: give --key or NORMBANK_KEY, or --data with {key_file.name} in it")
        key = key_file.read_text().strip()
    return Client(url, key)


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"detail": answer.text[:300]}
