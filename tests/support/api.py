"""The application behind a real uvicorn, and what the tests send to it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import numpy.typing as npt
import redis
import uvicorn
from fastapi import FastAPI

from app.engine.device import Device
from app.http.connections import HttpConnection
from app.server import create_app
from app.services import Services
from models.state import State
from normbank.config import Settings
from normbank.entities import DomainState, NewState, Role
from normbank.wiring import CoreServices
from tests.support.fake_engine import BACKBONE, SPEC, FakeEngine

START_S = 60.0

FileList = Sequence[tuple[str, tuple[str, bytes]]]


@dataclass
class Api:
    """A running service and one client per role."""

    url: str
    app: FastAPI
    keys: dict[Role, str] = field(default_factory=dict)
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    @property
    def core(self) -> CoreServices:
        return self.services.core

    def client(self, role: Role | None) -> httpx.Client:
        """A client with a key of this role; None: without a key."""
        return self.clients[str(role)]

    @property
    def admin(self) -> httpx.Client:
        return self.client(Role.ADMIN)

    def make_keys(self) -> None:
        """One key and client per role; call it again when the tables were emptied."""
        self.close_clients()
        self.clients["None"] = httpx.Client(base_url=self.url, timeout=30)
        for role in Role:
            self.keys[role] = self.services.core.keys.create(str(role), role)[1]
            headers = {"Authorization": f"Bearer {self.keys[role]}"}
            self.clients[role] = httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def close_clients(self) -> None:
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def add_domain(
        self,
        domain_id: str = "drawn",
        *,
        match: Mapping[str, Any] | None = None,
        states: Sequence[float] = (1.0,),
    ) -> list[DomainState]:
        """A domain with one promoted version per number; the last one is served."""
        self.core.domains.create(domain_id, domain_id, match or {}, "normbank", ())
        return [
            self.core.versions.publish(domain_id, state=new_state(shift), promote=True)
            for shift in states
        ]

    def segment(self, scan: bytes | None = None, **request: Any) -> httpx.Response:
        """POST /segment as an admin."""
        fields = request.pop("fields", {})
        name = request.pop("name", "scan.nii.gz")
        files = [("scan", (name, nifti() if scan is None else scan))]
        return self.admin.post("/segment", files=files, data=fields, **request)

    def stored_blobs(self) -> int:
        """How many files the blob store holds."""
        folder = self.services.core.settings.data_dir / "blobs" / "sha256"
        return sum(path.is_file() for path in folder.rglob("*"))

    def spooled(self) -> int:
        """How many requests' files still lie on disk."""
        return len(list(self.services.spool_dir.glob("request-*")))


@contextmanager
def serve(
    settings: Settings, make_device: Callable[[Settings], Device] | None = FakeEngine
) -> Iterator[Api]:
    """The application on a free port, in a thread, until the block ends."""
    app = create_app(settings, make_device)
    config = uvicorn.Config(
        app,
        port=0,
        http=HttpConnection,
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=2,
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    api = Api("", app)
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the application did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        api.url = f"http://127.0.0.1:{port}"
        api.clients["None"] = httpx.Client(base_url=api.url, timeout=30)
        yield api
    finally:
        api.close_clients()
        server.should_exit = True
        thread.join(30)


def wait_until(condition: Callable[[], bool], timeout_s: float = START_S) -> None:
    """Wait for a condition; fails the test when it does not come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def new_state(shift: float, job_id: str | None = None) -> NewState:
    """A sound state of the fake engine's backbone; another number, another state."""
    state = State.initial(SPEC, BACKBONE)
    state = State(state.rows + shift, BACKBONE)
    return NewState(state.sha256, BACKBONE, None, {}, {}, job_id, state.to_bytes())


def nifti(
    data: npt.NDArray[Any] | None = None, *, spacing_mm: float = 2.0, affine: Any = None
) -> bytes:
    """A small `.nii.gz`: a bright box in 80 mm of dark, or the given voxels."""
    if data is None:
        data = np.zeros((40, 40, 40), np.float32)
        data[10:30, 10:30, 10:30] = 100
    if affine is None:
        affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    return gzip.compress(nib.Nifti1Image(data, affine).to_bytes(), 1, mtime=0)


def read_nifti(data: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(data)))


def labels(ids: Sequence[int] = (17, 53), *, size: int = 40) -> bytes:
    """Labels on the default scan's grid: one box per id."""
    data = np.zeros((size,) * 3, np.int16)
    for position, number in enumerate(ids):
        data[10 + 3 * position : 12 + 3 * position, 10:30, 10:30] = number
    return nifti(data)


def pair(number: int = 0, ids: Sequence[int] = (17, 53)) -> list[tuple[str, tuple[str, bytes]]]:
    """A scan and its labels as parts of a form; another number, another scan."""
    data = np.zeros((40, 40, 40), np.float32)
    data[10:30, 10:30, 10:30] = 100 + number
    return [
        ("scans", (f"s{number}.nii.gz", nifti(data))),
        ("labels", (f"l{number}.nii.gz", labels(ids))),
    ]


def as_form(fields: Mapping[str, str]) -> list[tuple[str, tuple[None, bytes]]]:
    """Text fields as multipart parts, which httpx sends as such even without files."""
    return [(name, (None, value.encode())) for name, value in fields.items()]


def queued_messages(broker: redis.Redis) -> str:
    """Everything that waits in the broker's lists, as text with its bodies decoded."""
    lists = [key for key in broker.scan_iter() if broker.type(key) == b"list"]
    messages = [json.loads(text) for key in lists for text in broker.lrange(key, 0, -1)]
    bodies = [base64.b64decode(message["body"]).decode() for message in messages]
    return json.dumps([messages, bodies])
