"""A real HTTP server that answers as no sound PACS would."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BOUNDARY = "a-line"
DICOM_JSON = "application/dicom+json"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    media_type: str = DICOM_JSON


@dataclass
class OddPacs:
    """Gives one reply after another to requests whose path holds a word; then the last again.

    Attributes
    ----------
    replies : by that word; the first that fits
    asked : method and path of every request so far
    """

    replies: dict[str, list[Reply]]
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def reply(self, method: str, path: str) -> Reply:
        self.asked.append((method, path))
        for word, replies in self.replies.items():
            if word in path:
                return replies.pop(0) if len(replies) > 1 else replies[0]
        return Reply(404)


def rows(uids: Sequence[str]) -> Reply:
    """A QIDO-RS answer with the instances of these UIDs."""
    listed = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]
    return Reply(200, json.dumps(listed).encode())


def parts(bodies: Sequence[bytes], *, whole: bool = True) -> Reply:
    """A WADO-RS answer with these files; not whole: it is cut off in the last one."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + one + b"\r\n" for one in bodies) + f"--{BOUNDARY}--\r\n".encode()
    return Reply(200, body if whole else body[:-40], MULTIPART)


@contextmanager
def odd_pacs(*, tls: Path | None = None, **replies: Sequence[Reply]) -> Iterator[OddPacs]:
    """The server, on a free port.

    Parameters
    ----------
    tls : key and certificate that it shows
    replies : what it answers, by a word of the path
    """
    pacs = OddPacs({word: list(some) for word, some in replies.items()})

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = pacs.reply(self.command, self.path)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.media_type)
            self.end_headers()  # the end of the body is the end of the connection
            self.wfile.write(reply.body)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pacs.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}/rs"
    if tls:
        secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secured.load_cert_chain(tls)
        server.socket = secured.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield pacs
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
