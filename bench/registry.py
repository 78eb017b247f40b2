"""What a growing registry costs: PostgreSQL and the bank with 1, 100 and 10,000 domains.

    python bench/registry.py [--sizes 1,100,10000]

An embedded PostgreSQL in a temporary folder is filled step by step with
domains of a version each. At every size: how long a new domain takes until it
could answer, what a request asks the database, one page of the list, what a
server does at its start and what it does again at every poll, the size of the
database, and the memory of this process. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import text

from app.engine.engine import Engine
from app.engine.segmenter import Segmenter
from app.telemetry import Telemetry
from bench.forward import neighbours
from cli.local.postgres import EmbeddedPostgres
from experiments.kit.environment import environment
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import choose_device, choose_precision
from models.state import State
from normbank.config import Settings
from normbank.entities import NewState
from normbank.storage.database import migrate
from normbank.storage.roles import equip_service_role
from normbank.wiring import open_services

REPEATS = 20
PAGE = 50


def timed(run: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)


class Growing:
    """A core, and a server's engine beside it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._settings = Settings(data_dir=folder, database_url=url, redis_url="redis://unused")
        self.core = open_services(self._settings)
        self.count = 0
        self.segmenter, _ = self.server()

    def server(self) -> tuple[Segmenter, Engine]:
        """A server that has just started and holds no domain yet."""
        engine = Engine(self._settings)
        engine.start()
        return Segmenter(self.core, engine, Telemetry()), engine

    def add(self, state: State) -> None:
        """One more domain, served."""
        domain = f"ward-{self.count:06d}"
        self.core.domains.create(domain, domain, {}, "freesurfer", ())
        new = NewState.imported(state.sha256, state.backbone, state.to_bytes())
        self.core.versions.publish(domain, state=new, promote=True)
        self.count += 1


def measure(growing: Growing, fresh: list[State]) -> dict[str, Any]:
    """Figures at one size; a few more domains are left behind."""
    live, asked, pages = [], [], []
    size = growing.count
    growing.segmenter.preload_all()
    rss = psutil.Process().memory_info().rss
    for state in fresh:
        domain = f"ward-{growing.count:06d}"

        def appear(state: State = state, domain: str = domain) -> None:
            growing.add(state)
            growing.segmenter.preload(domain)

        live.append(timed(appear))
        asked.append(timed(lambda domain=domain: growing.segmenter.load_state(domain)))  # type: ignore[misc]
        pages.append(timed(lambda: growing.core.domains.page(None, PAGE)))
    poll = timed(growing.segmenter.preload_all)
    segmenter, engine = growing.server()
    first_load = timed(segmenter.preload_all)
    engine.stop()
    with growing.core.database.connect() as connection:
        stored = connection.execute(
            text("select pg_database_size(current_database())")
        ).scalar_one()
    return {
        "domains": size,
        "new_domain_live_ms": round(statistics.median(live), 2),
        "request_ms": round(statistics.median(asked), 2),
        "list_page_ms": round(statistics.median(pages), 2),
        "preload_s": round(first_load / 1000, 2),
        "poll_s": round(poll / 1000, 2),
        "database_mb": round(int(stored) / 1e6, 1),
        "rss_mb": rss // 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,100,10000")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    sizes = [int(n) for n in options.sizes.split(",")]
    backbone = load_backbone()
    first = read_states(SHIPPED, backbone)["sim-t1w-3t"]
    states = neighbours(first)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedPostgres(folder / "postgres") as postgres:
            migrate(postgres.owner_url)
            equip_service_role(postgres.owner_url, postgres.url)
            growing = Growing(folder, postgres.url)
            for size in sizes:
                while growing.count < size:
                    growing.add(next(states))
                rows.append(measure(growing, list(islice(states, REPEATS))))
            growing.core.database.dispose()
    device = choose_device()
    print(json.dumps({"sizes": rows, **environment(device, choose_precision("auto", device))}))


if __name__ == "__main__":
    main()
