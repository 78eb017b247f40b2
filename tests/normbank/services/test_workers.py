"""A worker lives while both of its processes say so."""

from __future__ import annotations

import math

from sqlalchemy import Engine, text

from normbank.entities import WorkerProcess
from normbank.wiring import CoreServices

MAIN, POOL = WorkerProcess.MAIN, WorkerProcess.POOL


def age(engine: Engine, process: WorkerProcess, seconds: float) -> None:
    statement = "UPDATE worker_heartbeat SET seen_at = now() - make_interval(secs => :s)"
    with engine.begin() as connection:
        connection.execute(text(f"{statement} WHERE process = :p"), {"s": seconds, "p": process})


def test_a_worker_is_alive_when_both_of_its_processes_are(core: CoreServices) -> None:
    core.workers.begin("host:1", MAIN)
    assert core.workers.silent_s("host:1") == math.inf
    assert core.workers.alive() == ()
    core.workers.begin("host:1", POOL)
    (worker,) = core.workers.alive()
    assert (worker.name, worker.silent_s < 5) == ("host:1", True)
    assert core.workers.silent_s("host:2") is None


def test_the_quieter_process_decides(core: CoreServices, engine: Engine) -> None:
    for process in WorkerProcess:
        core.workers.begin("host:1", process)
    age(engine, POOL, 60)
    assert core.workers.alive() == ()
    core.workers.beat("host:1", MAIN)
    assert core.workers.alive() == ()
    core.workers.beat("host:1", POOL)
    assert len(core.workers.alive()) == 1


def test_workers_that_ended_or_were_lost_long_ago_are_forgotten(
    core: CoreServices, engine: Engine
) -> None:
    for name in ("host:1", "host:2"):
        for process in WorkerProcess:
            core.workers.begin(name, process)
    core.workers.end("host:1")
    assert [worker.name for worker in core.workers.all()] == ["host:2"]
    age(engine, MAIN, 2 * 86_400)
    age(engine, POOL, 2 * 86_400)
    core.workers.forget_lost()
    assert core.workers.all() == ()
