"""HTTP client of the REST API; nothing else in this package sends a request to it."""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import httpx
from httpx_sse import connect_sse

from normbank.entities import JobState

FINISHED = frozenset(state.value for state in JobState if state.finished)
POLL_S = 0.5
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(30.0, read=1800.0, write=600.0)
STANDARD_MEMBERS = frozenset(
    {"type", "title", "status", "detail", "instance", "code", "errors", "request_id"}
)


class ClientError(Exception):
    """A request without a successful response; the message is one for a person."""


class UnreachableError(ClientError):
    """No response at all."""


class ApiError(ClientError):
    """A response that is not a success; `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "error"))
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        """Format the reason, the status and the document's extension members."""
        reason = self.problem.get("detail") or self.problem.get("title") or "no reason given"
        members = {name: v for name, v in self.problem.items() if name not in STANDARD_MEMBERS}
        flags = members.pop("flags", None) or ()
        members.pop("ranking", None)  # `normbank domains` lists them, `POST /identify` says more
        extensions = f" {json.dumps(members)}" if members else ""
        errors = "".join(f"\n  {json.dumps(error)}" for error in self.problem.get("errors", ()))
        lines = "".join(f"\n  {flag_sentence(flag)}" for flag in flags)
        return f"{reason} ({self.status} {self.code}){extensions}{errors}{lines}"


def flag_sentence(flag: Mapping[str, Any]) -> str:
    """Format what the service noticed about a scan or its labels, for a person."""
    about = f"{flag['structure']}: " if flag.get("structure") else ""
    return f"{flag['severity']}: {about}{flag['detail']} ({flag['code']})"


class Client:
    """API calls as methods that return JSON or bytes.

    Parameters
    ----------
    url : of the service
    key : API key
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
        """Send one request.

        Raises
        ------
        ApiError
            The response is not a success.
        UnreachableError
            There is no response.
        """
        try:
            response = self._http.request(method, path, **request)
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"no service answers at {self._http.base_url}; `normbank up` starts one"
            ) from error
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"the service did not answer: {error or type(error).__name__}"
            ) from error
        if not response.is_success:
            raise ApiError(response.status_code, _problem(response))
        return response

    def get(self, path: str, **parameters: Any) -> Any:
        """GET a JSON document."""
        return self.call("GET", path, params=parameters).json()

    def items(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Iterate over a listing, page after page."""
        parameters: dict[str, str] = {}
        while True:
            page = self.get(path, **parameters)
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            parameters = {"cursor": page["next_cursor"]}

    def segment(
        self,
        scan: Path | Sequence[Path],
        domain: str,
        *,
        sidecar: Path | None = None,
        **parameters: Any,
    ) -> Mapping[str, Any]:
        """Segment one scan; the volumes in JSON, with a link to the labels.

        Parameters
        ----------
        scan : a file, or those of a DICOM series
        """
        with ExitStack() as stack:
            # Called by their fields: names decide nothing, and may name a patient.
            content = scan.open("rb") if isinstance(scan, Path) else zipped(scan)
            files = [("scan", ("scan", stack.enter_context(content)))]
            if sidecar is not None:
                files.append(("sidecar", ("sidecar", stack.enter_context(sidecar.open("rb")))))
            response = self.call(
                "POST",
                "/segment",
                data={"domain": domain},
                files=files,
                params=parameters,
                headers={"Accept": "application/json"},
            )
        return dict(response.json())

    def labels(self, segmentation_id: str) -> bytes:
        """Download the `.nii.gz` of a segmentation."""
        return self.call("GET", f"/segmentations/{segmentation_id}/labels").content

    def send_cases(
        self,
        path: str,
        fields: Mapping[str, str],
        scans: Sequence[Path],
        labels: Sequence[Path],
        *,
        accept_doubtful: bool = False,
    ) -> Mapping[str, Any]:
        """POST pairs of scans and labels as multipart, in order."""
        parameters = {"accept": "doubtful"} if accept_doubtful else {}
        with ExitStack() as stack:
            files = [
                (field, (field, stack.enter_context(path_.open("rb"))))
                for field, paths in (("scans", scans), ("labels", labels))
                for path_ in paths
            ]
            # As parts without a name: with `data=` and no file httpx would not send multipart.
            texts = [(field, (None, text)) for field, text in fields.items()]
            parts = [*texts, *files]
            return dict(self.call("POST", path, files=parts, params=parameters).json())

    def change(self, method: str, domain_id: str, path: str = "", **request: Any) -> Any:
        """Change a domain with optimistic locking: reads its ETag, sends it as If-Match."""
        tag = self.call("GET", f"/domains/{domain_id}").headers["ETag"]
        response = self.call(
            method, f"/domains/{domain_id}{path}", headers={"If-Match": tag}, **request
        )
        return response.json() if response.content else None

    def adapt(
        self, domain_id: str, recipe: Mapping[str, Any], *, idempotency_key: str = ""
    ) -> Mapping[str, Any]:
        """Queue an adaptation; its job, the earlier one where the key has been used before."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        path = f"/domains/{domain_id}/adapt"
        return dict(self.call("POST", path, json=dict(recipe), headers=headers).json())

    def follow(self, job_id: str) -> Iterator[Mapping[str, Any]]:
        """Iterate over a job's states until it has finished: events, else polling."""
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
        """Stream the job's server-sent events; ends early where the stream breaks off."""
        path = f"/jobs/{job_id}/events"
        try:
            with connect_sse(self._http, "GET", path, timeout=60.0) as source:
                if source.response.is_success:
                    for event in source.iter_sse():
                        yield event.json()
        except httpx.HTTPError:  # also what is no event stream
            return


def zipped(files: Sequence[Path]) -> IO[bytes]:
    """A temporary zip of some files, called by their numbers."""
    packed = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number, path in enumerate(files):
            archive.write(path, str(number))
    packed.seek(0)
    return packed


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    """Read the RFC 9457 document; the first characters of any other body."""
    try:
        document = response.json()
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"detail": response.text[:300]}
