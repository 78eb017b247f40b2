"""Whether the service has everything it needs to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import anyio
from anyio import to_thread

Needs = Mapping[str, Callable[[], bool | str]]
"""What is asked, by name; a text means yes and is the detail."""


@dataclass(frozen=True, slots=True)
class Check:
    """One need and whether it is met; `detail` says why not or how, for people."""

    name: str
    ok: bool
    detail: str = ""


class Readiness:
    """Asks every need, once for all who want to know at the same time.

    Parameters
    ----------
    needs : by name
    """

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._threads = anyio.CapacityLimiter(1)
        self._asking: asyncio.Task[list[Check]] | None = None

    async def check(self) -> list[Check]:
        """Ask, or wait for the answers that somebody else is waiting for."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> list[Check]:
        return await to_thread.run_sync(run_checks, self._needs, limiter=self._threads)


def run_checks(checks: Needs, *, timeout_s: float = 3.0) -> list[Check]:
    """Ask every need at once.

    Parameters
    ----------
    checks : by name
    timeout_s : for all of them together; one that takes longer is not met
    """
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="readiness")
    try:
        running = {name: pool.submit(check) for name, check in checks.items()}
        wait(running.values(), timeout_s)
        return [_outcome(name, future) for name, future in running.items()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _outcome(name: str, asked: Future[bool | str]) -> Check:
    if not asked.done():
        return Check(name, False, "no answer in time")
    try:
        met = asked.result()
    except Exception as error:  # whatever a need raises means that it is not met
        return Check(name, False, type(error).__name__)
    if isinstance(met, str):
        return Check(name, True, met)
    return Check(name, met, "" if met else "not met")
