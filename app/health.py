"""Whether the service has everything it needs to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import anyio
from anyio import to_thread

Needs = Mapping[str, Callable[[], bool | str]]
"""What is asked, by name; a text means yes and is the detail."""


class UnmetError(Exception):
    """A need is not met; the message may be shown to anybody."""


@dataclass(frozen=True, slots=True)
class Check:
    """One need and whether it is met; `detail` says why not or how, for people."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the service needs, and what else an operator wants to know.

    Attributes
    ----------
    needs : the service is ready when all of them are met
    details : in words, by name; nothing in them keeps it from serving
    """

    needs: Sequence[Check]
    details: Mapping[str, str]

    @property
    def ready(self) -> bool:
        return all(need.ok for need in self.needs)


class ReadinessProbe:
    """Asks for every need and detail, once for all who want to know at the same time.

    Parameters
    ----------
    needs, details : by name, see `Readiness`
    """

    def __init__(self, needs: Needs, details: Needs) -> None:
        self._needs, self._details = needs, details
        self._threads = anyio.CapacityLimiter(1)
        self._asking: asyncio.Task[Readiness] | None = None

    async def check(self) -> Readiness:
        """Ask, or wait for the answers that somebody else is waiting for."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Readiness:
        everything = {**self._needs, **self._details}
        checks = await to_thread.run_sync(run_checks, everything, limiter=self._threads)
        return Readiness(
            [check for check in checks if check.name in self._needs],
            {check.name: check.detail for check in checks if check.name in self._details},
        )


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
    except UnmetError as error:
        return Check(name, False, str(error))
    except Exception as error:  # whatever a need raises means that it is not met
        return Check(name, False, type(error).__name__)
    if isinstance(met, str):
        return Check(name, True, met)
    return Check(name, met, "" if met else "not met")
