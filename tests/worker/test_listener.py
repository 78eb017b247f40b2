"""The listener goes on whatever goes wrong, and says so once."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from normbank.pacs.client import PacsClient
from normbank.pacs.config import Pacs
from normbank.wiring import CoreServices
from worker.listener import Listener


def test_a_fault_of_our_own_ends_no_listener(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pacs = Pacs(name="main", dicomweb_url="http://127.0.0.1:1/rs", poll_s=0.01)
    listener = Listener(cast(CoreServices, None), cast(PacsClient, SimpleNamespace(pacs=pacs)))
    stop, looks = threading.Event(), [KeyError("CANARY"), KeyError("CANARY"), None]

    def look() -> None:
        fault: Any = looks.pop(0)
        if fault is not None:
            raise fault
        stop.set()

    monkeypatch.setattr(listener, "look", look)
    with caplog.at_level(logging.WARNING, "worker.listener"):
        listener.run(stop)
    assert not looks
    assert [record.getMessage() for record in caplog.records] == [
        "following stopped",
        "following again",
    ]
    assert "CANARY" not in str([vars(record).get("why") for record in caplog.records])
