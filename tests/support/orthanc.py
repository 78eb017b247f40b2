"""A real Orthanc with its DICOMweb plugin, for the tests that need a PACS."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from normbank.pacs.config import Pacs
from tests.support.services import free_ports, short_folder

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_S = 30.0
USER, PASSWORD = "normbank", "orthanc-test"

needs_orthanc = pytest.mark.skipif(
    not (shutil.which("Orthanc") and shutil.which("storescu") and PLUGIN.exists()),
    reason="needs Orthanc, its DICOMweb plugin and storescu "
    "(apt-get install orthanc orthanc-dicomweb dcmtk)",
)


class Orthanc:
    """An Orthanc on two free ports, with a folder of its own.

    Parameters
    ----------
    folder : of its configuration, its database and its log
    settings : of Orthanc, over those that a test needs
    lua : a script that it runs
    """

    def __init__(self, folder: Path, *, lua: str = "", **settings: Any) -> None:
        self.folder = folder
        self.port, self.dicom_port = free_ports(2)
        self.log = folder / "orthanc.log"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "script.lua").write_text(lua)
        chosen = {
            "Name": "test",
            "HttpPort": self.port,
            "DicomPort": self.dicom_port,
            "DicomAet": "TEST",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(PLUGIN)],
            "LuaScripts": [str(folder / "script.lua")] if lua else [],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "StableAge": 1,
            "OverwriteInstances": False,
        }
        (folder / "orthanc.json").write_text(json.dumps({**chosen, **settings}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self.folder / "orthanc.json")],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        give_up_at = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < give_up_at, "Orthanc does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; what it has stored stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return self.get("/system").is_success
        except httpx.HTTPError:
            return False

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """A GET of its own REST API, below its root."""
        address = f"http://127.0.0.1:{self.port}{path}"
        login = (USER, PASSWORD)
        return httpx.get(address, params=parameters, auth=login, trust_env=False, timeout=10)

    def send(self, files: Iterable[Path]) -> None:
        """Send files to it by C-STORE, as a scanner does."""
        subprocess.run(
            ["storescu", "-aec", "TEST", "127.0.0.1", str(self.dicom_port), *map(str, files)],
            check=True,
            capture_output=True,
        )

    def found(self, modality: str) -> list[tuple[str, str]]:
        """(study, SOP instance) UIDs of all instances of a modality, by QIDO-RS."""
        rows = self.get("/dicom-web/instances", Modality=modality, limit=1000).json()
        return sorted((row["0020000D"]["Value"][0], row["00080018"]["Value"][0]) for row in rows)

    def pacs(self, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Pacs:
        """It as an entry of the PACS file; its credentials are put into the environment."""
        monkeypatch.setenv("TEST_ORTHANC_USER", USER)
        monkeypatch.setenv("TEST_ORTHANC_PASSWORD", PASSWORD)
        return Pacs(**{**self.entry, **keys})

    @property
    def entry(self) -> dict[str, Any]:
        """Its keys in a PACS file."""
        return {
            "name": "main",
            "dicomweb_url": self.url,
            "username_env": "TEST_ORTHANC_USER",
            "password_env": "TEST_ORTHANC_PASSWORD",
        }


@contextmanager
def running_orthanc(*, lua: str = "", **settings: Any) -> Iterator[Orthanc]:
    """An Orthanc that forgets everything at the end."""
    with short_folder() as folder:
        orthanc = Orthanc(folder, lua=lua, **settings)
        orthanc.start()
        try:
            yield orthanc
        finally:
            orthanc.kill()  # it takes seconds to go by itself, and nothing of it is kept
