"""`normbank upgrade` against the real API, with a worker that only pretends to learn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from cli.main import app
from models.state import State
from normbank.config import Settings
from normbank.entities import NewState, Recipe, Role
from normbank.schema import JobRow
from tests.support.api import Api, new_state, serve, wait_until
from tests.support.domains import new_case
from tests.support.fake_engine import BACKBONE, SPEC

OLD = "c" * 64
SERVED_DICE = 0.7


@pytest.fixture
def api(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    settings = Settings(database_url=database_url, redis_url=redis_url, data_dir=tmp_path)
    with serve(settings) as running:
        wait_until(lambda: running.client(None).get("/readyz").status_code == 200)
        running.make_keys()
        yield running


class PretendedWorker:
    """Ends every adaptation with a candidate of the given Dice, or a failure for None."""

    def __init__(self, api: Api, engine: Engine) -> None:
        self.dice: dict[str, float | None] = {}
        self.done: list[str] = []
        self._api, self._engine = api, engine
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            with self._engine.connect() as connection:
                queued = connection.scalars(select(JobRow.id).where(JobRow.state == "queued"))
                found = list(queued)
            for job_id in found:
                self._work(job_id)

    def _work(self, job_id: str) -> None:
        core = self._api.core
        job = core.leases.claim(job_id, "pretended")
        assert job is not None
        assert job.domain_id is not None
        self.done.append(job.domain_id)
        assert Recipe.from_json(job.payload) == Recipe(publish=False)
        learnt = self.dice[job.domain_id]
        if learnt is None:
            core.leases.fail(job.id, job.attempt, "out_of_memory", "The device has no memory left.")
            return
        replaced = {"version": core.domains.get(job.domain_id).active_version, "dice": SERVED_DICE}
        metrics = {"after": {"mean_dice": learnt}, "replaced": replaced}
        bare = new_state(learnt)
        state = NewState(bare.sha256, BACKBONE, None, {}, metrics, job.id, bare.tensors)
        made = core.versions.publish(job.domain_id, state=state, promote=False)
        core.leases.succeed(job.id, job.attempt, {"domain": job.domain_id, "version": made.number})


@pytest.fixture
def worker(api: Api, engine: Engine) -> Iterator[PretendedWorker]:
    pretended = PretendedWorker(api, engine)
    yield pretended
    pretended.stop()


def add_older(api: Api, domain: str, cases: int) -> None:
    """A domain with cases that is served on the older backbone."""
    made = [new_case(api.services.core.blobs, f"{domain} {number}") for number in range(cases)]
    api.core.domains.create(domain, domain, {}, "freesurfer", (), made)
    publish_older(api, domain, 0.0)


def publish_older(api: Api, domain: str, shift: float) -> None:
    state = State(State.initial(SPEC, OLD).rows + shift, OLD)
    first = NewState.imported(state.sha256, OLD, state.to_bytes())
    api.core.versions.publish(domain, state=first, promote=True)


def upgrade(api: Api, *arguments: str) -> Result:
    connection = ("--url", api.url, "--key", api.keys[Role.ADMIN])
    return CliRunner().invoke(
        app, ["upgrade", *arguments, *connection], env={"COLUMNS": "160", "NO_COLOR": "1"}
    )


def row_of(output: str, domain: str) -> list[str]:
    line = next(line for line in output.splitlines() if f" {domain} " in line and "│" in line)
    return [cell.strip() for cell in line.strip()[1:-1].split("│")]


def active(api: Api) -> Mapping[str, int | None]:
    return {one.id: one.active_version for one in api.core.domains.page().items}


def test_domains_of_an_older_backbone_get_candidates_and_are_promoted_when_asked(
    api: Api, worker: PretendedWorker
) -> None:
    for domain, cases in (("a-better", 2), ("b-worse", 3), ("c-alone", 1), ("d-archived", 2)):
        add_older(api, domain, cases)
    api.core.domains.archive("d-archived", api.core.domains.get("d-archived").revision)
    api.add_domain("e-current")
    worker.dice = {"a-better": 0.8, "b-worse": SERVED_DICE}
    before = active(api)

    first = upgrade(api)
    assert first.exit_code == 0, first.output
    assert active(api) == before
    assert row_of(first.stdout, "a-better") == ["a-better", "1", "0.700", "2", "0.800", "better"]
    assert row_of(first.stdout, "b-worse")[3:] == ["2", "0.700", "not better"]
    assert "normbank domains promote a-better 2" in first.stdout
    assert "promote b-worse" not in first.stdout
    assert "c-alone: kept on the older backbone; it has 1 stored cases" in first.stdout
    assert "d-archived" not in first.stdout
    assert "e-current" not in first.stdout

    second = upgrade(api, "--promote")
    assert second.exit_code == 0, second.output
    assert row_of(second.stdout, "a-better")[3:] == ["2", "0.800", "promoted"]
    assert active(api) == {**before, "a-better": 2}
    assert worker.done == ["a-better", "b-worse"]
    move = api.core.versions.promotions("a-better")[-1]
    assert (move.from_version, move.to_version) == (1, 2)

    third = upgrade(api)
    assert "a-better" not in third.stdout


def test_one_domain_can_be_named(api: Api, worker: PretendedWorker) -> None:
    for domain in ("first", "second"):
        add_older(api, domain, 2)
    worker.dice = {"first": 0.9, "second": 0.9}
    done = upgrade(api, "--domain", "second", "--promote")
    assert done.exit_code == 0, done.output
    assert active(api) == {"first": 1, "second": 2}
    assert worker.done == ["second"]
    again = upgrade(api, "--domain", "second")
    assert (again.exit_code, again.stdout) == (0, "nothing is served on an older backbone\n")
    unknown = upgrade(api, "--domain", "third")
    assert unknown.exit_code == 1
    assert "unknown_domain" in unknown.stderr


def test_a_candidate_is_not_promoted_over_a_version_it_was_not_compared_with(
    api: Api, worker: PretendedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_older(api, "ward", 2)
    worker.dice = {"ward": 0.9}
    scored = upgrade(api)
    assert scored.exit_code == 0, scored.output
    from cli import upgrade as command

    queue = command.adapt_all

    def interfere(*arguments: object) -> object:
        outcomes = queue(*arguments)  # type: ignore[arg-type]
        publish_older(api, "ward", 1.0)
        return outcomes

    monkeypatch.setattr(command, "adapt_all", interfere)
    done = upgrade(api, "--promote")
    assert done.exit_code == 1
    assert row_of(done.stdout, "ward")[-1] == "another version is served by now"
    assert active(api) == {"ward": 3}


def test_a_failed_adaptation_is_told_and_tried_again_the_next_time(
    api: Api, worker: PretendedWorker
) -> None:
    for domain in ("bad", "good"):
        add_older(api, domain, 2)
    worker.dice = {"bad": None, "good": 0.8}
    done = upgrade(api)
    assert done.exit_code == 1
    assert row_of(done.stdout, "bad")[1:5] == ["1", "–", "–", "–"]
    assert "out_of_memory" in row_of(done.stdout, "bad")[-1]
    assert row_of(done.stdout, "good")[-1] == "better"
    worker.dice["bad"] = 0.8
    again = upgrade(api)
    assert again.exit_code == 0, again.output
    assert row_of(again.stdout, "bad")[-1] == "better"
    assert worker.done == ["bad", "good", "bad"]


def test_a_domain_that_is_being_adapted_is_left_alone(api: Api) -> None:
    add_older(api, "busy", 2)
    api.services.core.jobs.submit_adapt("busy", Recipe())
    done = upgrade(api)
    assert done.exit_code == 1
    assert "adaptation_in_flight" in done.stdout
