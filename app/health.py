"""Whether the service has everything it needs to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One need and whether it is met; `detail` says why not, for people."""

    name: str
    ok: bool
    detail: str = ""


def run_checks(checks: Mapping[str, Callable[[], bool]], *, timeout_s: float = 5.0) -> list[Check]:
    """Ask every need at once.

    Parameters
    ----------
    checks : name -> whether it is met; may block and may raise
    timeout_s : for all of them together
    """
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="readiness")
    try:
        running = {name: pool.submit(check) for name, check in checks.items()}
        return [_outcome(name, future.result, timeout_s) for name, future in running.items()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _outcome(name: str, result: Callable[[float], bool], timeout_s: float) -> Check:
    try:
        met = result(timeout_s)
    except TimeoutError:
        return Check(name, False, "no answer in time")
    except Exception as error:  # whatever a need raises means that it is not met
        return Check(name, False, type(error).__name__)
    return Check(name, met, "" if met else "not met")
