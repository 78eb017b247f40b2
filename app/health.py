"""Whether the service has everything it needs to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass


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


def check_readiness(
    needs: Mapping[str, Callable[[], bool | str]], details: Mapping[str, Callable[[], bool | str]]
) -> Readiness:
    """Ask for needs and details at once; see `run_checks`."""
    checks = run_checks({**needs, **details})
    return Readiness(
        [check for check in checks if check.name in needs],
        {check.name: check.detail for check in checks if check.name in details},
    )


def run_checks(
    checks: Mapping[str, Callable[[], bool | str]], *, timeout_s: float = 3.0
) -> list[Check]:
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
