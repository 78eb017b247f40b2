"""Readiness: every need is asked at once, and nobody waits for one that hangs."""

from __future__ import annotations

import threading
from time import perf_counter

from app.health import run_checks


def test_needs_that_hang_share_one_deadline() -> None:
    never = threading.Event()

    def hang() -> bool:
        return never.wait(30)

    started = perf_counter()
    try:
        checks = run_checks({"a": hang, "b": hang, "c": lambda: True}, timeout_s=0.3)
        assert perf_counter() - started < 3
    finally:
        never.set()
    assert [(check.name, check.ok) for check in checks] == [("a", False), ("b", False), ("c", True)]
    assert checks[0].detail == "no answer in time"


def test_a_need_that_raises_is_not_met() -> None:
    def fail() -> bool:
        raise OSError("/secret/path")

    (check,) = run_checks({"a": fail})
    assert (check.ok, check.detail) == (False, "OSError")
