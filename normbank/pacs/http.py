"""Requests to a PACS: credentials, certificates, time-outs, retries, and errors in words."""

from __future__ import annotations

import http
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import httpx
import stamina
import stamina.instrumentation

from normbank.errors import PacsError, PacsRefusedError, PacsUnreachableError
from normbank.pacs.config import Pacs

ATTEMPTS = 3
FIRST_PAUSE_S = 0.3
LONGEST_PAUSE_S = 3.0
GIVE_UP_S = 15.0
"""No further attempt after this time: who waits longer shall not keep a worker busy."""
PASSING = frozenset({502, 503, 504})
"""Answers of a proxy, or of a PACS that starts: they may be others in a moment."""

Answer = TypeVar("Answer")


stamina.instrumentation.set_on_retry_hooks([])  # what comes of the last try is told, in words


class PacsHttp:
    """A connection to one PACS. Proxies of the environment are not used.

    Parameters
    ----------
    pacs : from the PACS file
    """

    def __init__(self, pacs: Pacs) -> None:
        self.name = pacs.name
        timeout = httpx.Timeout(pacs.read_timeout_s, connect=pacs.connect_timeout_s)
        self._http = httpx.Client(
            auth=pacs.credentials,
            verify=ssl.create_default_context(cafile=pacs.ca_file),
            timeout=timeout,
            trust_env=False,
            headers={"User-Agent": "normbank"},
        )
        self._url = pacs.dicomweb_url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        accept: str = "application/dicom+json",
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
        expected: tuple[int, ...] = (),
    ) -> httpx.Response:
        """One request, repeated where its failure may pass.

        Parameters
        ----------
        path : below the root of the DICOMweb services; a whole URL is taken as it is
        expected : answers that are no success and that the caller understands

        Raises
        ------
        PacsUnreachableError, PacsRefusedError
        """

        def send() -> httpx.Response:
            headers = {"Accept": accept}
            if content_type is not None:
                headers["Content-Type"] = content_type
            response = self._http.request(
                method, self._at(path), params=params, content=content, headers=headers
            )
            if response.status_code not in expected:
                response.raise_for_status()
            return response

        return self.repeated(send)

    def ask_json(self, method: str, url: str, content: Any = None) -> Any:
        """A JSON answer of a service beside DICOMweb, at a whole URL.

        Raises
        ------
        PacsUnreachableError
        PacsRefusedError
            Also if it answers something else.
        """
        body = None if content is None else json.dumps(content).encode()
        response = self.ask(method, url, accept="application/json", content=body)
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise PacsRefusedError(f"The PACS '{self.name}' did not answer with JSON.") from error

    @contextmanager
    def streamed(self, path: str, accept: str) -> Iterator[httpx.Response]:
        """The answer to a GET whose body is read piece by piece; raises what httpx raises."""
        with self._http.stream("GET", self._at(path), headers={"Accept": accept}) as response:
            response.raise_for_status()
            yield response

    def repeated(self, work: Callable[[], Answer]) -> Answer:
        """Do something with the PACS, again where its failure may pass.

        Raises
        ------
        PacsUnreachableError
            It is still away at the last attempt.
        PacsRefusedError
            It answers, and refuses.
        """
        started = time.monotonic()
        try:
            for attempt in stamina.retry_context(
                on=may_pass,
                attempts=ATTEMPTS,
                timeout=GIVE_UP_S,
                wait_initial=FIRST_PAUSE_S,
                wait_max=LONGEST_PAUSE_S,
                wait_jitter=FIRST_PAUSE_S,
            ):
                with attempt:
                    return work()
        except httpx.HTTPError as error:
            raise self._in_words(error, time.monotonic() - started) from error
        raise AssertionError("an attempt returns or raises")

    def _in_words(self, error: httpx.HTTPError, waited_s: float) -> PacsError:
        """What an exchange that failed means."""
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            said, away = said_by(status), status in PASSING
        else:
            said, away = why_not(error), not bad_certificate(error)
        message = f"The PACS '{self.name}' {said}"
        if away:
            return PacsUnreachableError(message, waited_s=waited_s)
        return PacsRefusedError(message)

    def _at(self, path: str) -> str:
        return path if "://" in path else f"{self._url}/{path}"


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in PASSING
    return isinstance(error, httpx.TransportError) and not bad_certificate(error)


def said_by(status: int) -> str:
    """What an answer's status means and what to do, without its body: that may quote a patient."""
    advice = {
        401: "look at username_env and password_env",
        403: "its user may not do this",
        404: "look at dicomweb_url, or the series is not there",
        406: "it cannot send DICOM as it is stored",
        413: "it takes no request this large",
    }
    phrase = http.HTTPStatus(status).phrase if status in _KNOWN else "an unknown status"
    hint = advice.get(status, "its own log says more")
    return f"answered {status} {phrase}: {hint}."


_KNOWN = frozenset(int(status) for status in http.HTTPStatus)


def bad_certificate(error: BaseException) -> bool:
    """Whether a connection failed because the PACS's certificate cannot be trusted."""
    return _caused_by(error, ssl.SSLCertVerificationError) is not None


def why_not(error: httpx.HTTPError) -> str:
    """Why there was no answer, and what to do."""
    if (certificate := _caused_by(error, ssl.SSLCertVerificationError)) is not None:
        reason = getattr(certificate, "verify_message", "it cannot be checked")
        return f"has a certificate that is not trusted ({reason}): name its CA as ca_file."
    if _caused_by(error, ssl.SSLError) is not None or "SSL" in str(error):
        return "does not speak TLS as we do: look at http or https in dicomweb_url."
    if _caused_by(error, socket.gaierror) is not None or "Name or service" in str(error):
        return "has a host name that cannot be found: look at dicomweb_url."
    if isinstance(error, httpx.ConnectTimeout):
        return "does not answer a connection: look at the host, the port, a firewall between."
    if isinstance(error, httpx.TimeoutException):
        return "did not answer in time: it is overloaded, or read_timeout_s is too short."
    if isinstance(error, httpx.ConnectError):
        return "takes no connection: it does not run there, or host or port are wrong."
    return "ended the connection in the middle of an answer."


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
