"""The job `pacs` and the listener, with a real Orthanc."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import text

from normbank.config import Settings
from normbank.entities import Job, JobState, PacsPayload
from normbank.errors import NormbankError
from normbank.pacs.client import PacsClient
from normbank.pacs.config import read_pacs_file
from normbank.storage.spool import open_spool
from normbank.wiring import CoreServices, open_services
from tests.support.mr_series import CANARY, SLICES, write_series
from tests.support.orthanc import PASSWORD, USER, Orthanc, needs_orthanc, running_orthanc
from tests.support.pacs_service import Processes, processes, write_pacs_file
from tests.support.pacs_worker import do_jobs
from worker import pacs as pacs_job
from worker.listener import Listener

pytestmark = needs_orthanc

WITHIN_S = 60.0


@pytest.fixture
def orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as server:
        yield server


@pytest.fixture
def pacs_settings(
    orthanc: Orthanc,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    monkeypatch.setenv("TEST_ORTHANC_USER", USER)
    monkeypatch.setenv("TEST_ORTHANC_PASSWORD", PASSWORD)
    pacs_job._away.forget()
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        data_dir=tmp_path,
        pacs_file=write_pacs_file(tmp_path / "pacs.toml", orthanc),
        lease_s=2.0,
    )


@pytest.fixture
def core(pacs_settings: Settings) -> Iterator[CoreServices]:
    services = open_services(pacs_settings)
    yield services
    services.close()


@pytest.fixture
def work(core: CoreServices, pacs_settings: Settings) -> Iterator[Callable[[], int]]:
    """Do every job that is due."""
    with open_spool(pacs_settings.spool_at, "worker-") as spool:
        yield lambda: do_jobs(core, spool)
        assert [path.name for path in spool.iterdir()] == ["lock"]


def sent(orthanc: Orthanc, folder: Path, **attributes: Any) -> tuple[str, str]:
    """A series that the PACS has: its study and series."""
    files = write_series(folder, **attributes)
    orthanc.send(files)
    header = dcmread(files[0], stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


def until(happens: Callable[[], Any], within_s: float = WITHIN_S) -> None:
    give_up_at = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.1)


def rows(core: CoreServices, query: str) -> list[Any]:
    with core.database.connect() as connection:
        return list(connection.execute(text(query)))


def in_time(core: CoreServices, job_id: str) -> None:
    """Let the time come that a postponed job waits for."""
    with core.database.begin() as connection:
        connection.execute(text("UPDATE job SET not_before = now() WHERE id = :id"), {"id": job_id})
    pacs_job._away.forget()


def ended(core: CoreServices, job: Job) -> Job:
    return core.jobs.get(job.id)


def test_a_series_comes_back_as_a_seg_in_its_study(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    study, series = sent(orthanc, tmp_path / "s")
    job = core.jobs.submit_pacs(PacsPayload("main", study, series))
    assert work() == 1
    done = ended(core, job)
    assert done.state is JobState.SUCCEEDED, done.error_detail
    assert done.result is not None
    (stored,) = done.result["stored"]
    assert (done.result["domain"], done.result["reason"]) == ("plain", "only_domain")
    assert orthanc.found("SEG") == [(study, stored["instance"])]
    kept = [rows(core, f"SELECT * FROM {table}") for table in ("job", "audit_event")]
    for identifying in (study, series, CANARY, "CANARY"):
        assert identifying not in repr(kept)


def test_without_storing_the_result_alone_is_kept(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    job = core.jobs.submit_pacs(PacsPayload("main", *sent(orthanc, tmp_path / "s"), store=False))
    work()
    done = ended(core, job)
    assert (done.state, (done.result or {})["stored"]) == (JobState.SUCCEEDED, [])
    assert orthanc.found("SEG") == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (PacsPayload("other", "1.2", "1.3"), "unknown_pacs"),
        (PacsPayload("main", "1.2", "1..3"), "bad_uid"),
        (PacsPayload("main", "1.2" + 62 * "0", "1.3"), "bad_uid"),
        (PacsPayload("main", "1.2", "1.3/../4"), "bad_uid"),
        (PacsPayload("main", "1.2", "1.3", "ward-7"), "unknown_domain"),
    ],
)
def test_what_can_never_work_is_refused_at_once(
    core: CoreServices, payload: PacsPayload, code: str
) -> None:
    with pytest.raises(NormbankError) as caught:
        core.jobs.submit_pacs(payload)
    assert caught.value.code == code
    assert rows(core, "SELECT id FROM job") == []


def test_a_series_that_is_not_there_fails_its_job(
    core: CoreServices, work: Callable[[], int]
) -> None:
    job = core.jobs.submit_pacs(PacsPayload("main", generate_uid(), generate_uid()))
    work()
    assert ended(core, job).error_code == "series_empty"


def test_a_pacs_that_is_away_postpones_its_jobs_and_one_alone_tries(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    uids = sent(orthanc, tmp_path / "s")
    jobs = [core.jobs.submit_pacs(PacsPayload("main", *uids)) for _ in range(6)]
    orthanc.stop()
    started = time.monotonic()
    work()
    assert time.monotonic() - started < 10  # six that each tried would take longer
    for job in jobs:
        waiting = ended(core, job)
        assert (waiting.state, waiting.postponements) == (JobState.QUEUED, 1)
        assert waiting.step == "waiting for the PACS 'main'"
        assert core.leases.claim(job.id, "early") is None
    orthanc.start()
    in_time(core, jobs[0].id)
    work()
    assert ended(core, jobs[0]).state is JobState.SUCCEEDED
    assert len(orthanc.found("SEG")) == 1


def test_a_pacs_that_stays_away_fails_its_jobs_with_a_reason(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int]
) -> None:
    write_pacs_file(core.settings.data_dir / "pacs.toml", orthanc, patience_s=12.0)
    orthanc.stop()
    job = core.jobs.submit_pacs(PacsPayload("main", "1.2.3", "1.2.4"))
    tries = 0
    while not ended(core, job).state.finished:
        in_time(core, job.id)
        work()
        tries += 1
        assert tries < 9
    done = ended(core, job)
    assert (done.error_code, tries) == ("pacs_unreachable", 2)  # 5 s of waiting, then 10 more
    assert "takes no connection" in str(done.error_detail)


def test_a_job_that_was_killed_after_storing_does_not_store_again(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    """The row says "running" with the draft, the PACS has the SEG: as after `kill -9`."""
    study, series = sent(orthanc, tmp_path / "s")
    job = core.jobs.submit_pacs(PacsPayload("main", study, series))
    succeed, core.leases.succeed = core.leases.succeed, _dies  # type: ignore[method-assign,assignment]
    with pytest.raises(SystemExit):
        work()
    core.leases.succeed = succeed  # type: ignore[method-assign]
    assert len(orthanc.found("SEG")) == 1
    until(lambda: core.leases.sweep() == [job.id])
    work()
    done = ended(core, job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    assert orthanc.found("SEG") == [(study, (done.result or {})["stored"][0]["instance"])]


def _dies(*_: object) -> None:
    raise SystemExit


@pytest.fixture
def service(pacs_settings: Settings) -> Iterator[Processes]:
    """A worker and a listener, not started yet."""
    with processes(pacs_settings) as made:
        yield made


def done_once(core: CoreServices, orthanc: Orthanc, count: int = 1) -> None:
    """Wait for so many SEGs, and see that no more come."""
    until(lambda: len(rows(core, "SELECT id FROM job WHERE state = 'succeeded'")) >= count)
    until(lambda: not rows(core, "SELECT pacs FROM pacs_series WHERE state <> 'done'"))
    time.sleep(1.5)
    assert len(orthanc.found("SEG")) == count


def test_what_a_scanner_sends_comes_back_segmented_and_grows_into_a_new_version(
    core: CoreServices, orthanc: Orthanc, service: Processes, tmp_path: Path
) -> None:
    service.start("worker")
    service.start("listener")
    files = write_series(tmp_path / "s")
    sent(orthanc, tmp_path / "l", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    sent(orthanc, tmp_path / "k", BodyPartExamined="KNEE")
    orthanc.send(files[: SLICES - 4])
    done_once(core, orthanc)
    orthanc.send(files[SLICES - 4 :])
    done_once(core, orthanc, 2)
    seen = rows(core, "SELECT version, instances, passed_over FROM pacs_series ORDER BY version")
    assert sorted(map(repr, seen)) == sorted(
        [
            repr((2, SLICES, None)),
            repr((0, SLICES, "a localiser, a projection or a picture")),
            repr((0, SLICES, "no head")),
        ]
    )
    kept = repr(rows(core, "SELECT * FROM pacs_series")) + repr(rows(core, "SELECT * FROM job"))
    header = dcmread(files[0], stop_before_pixels=True)
    said = service.log("worker") + service.log("listener")
    for identifying in (header.StudyInstanceUID, header.SeriesInstanceUID, "CANARY"):
        assert str(identifying) not in kept + said


def test_killed_anywhere_and_without_its_pacs_for_a_while_there_is_one_seg(
    core: CoreServices, orthanc: Orthanc, service: Processes, tmp_path: Path
) -> None:
    service.start("listener")
    sent(orthanc, tmp_path / "s")
    until(lambda: rows(core, "SELECT pacs FROM pacs_series"))
    service.kill("listener")  # while the series settles
    service.start("listener")
    until(lambda: rows(core, "SELECT id FROM job"))
    service.kill("listener")  # just after it has made the job
    service.start("worker", TEST_SEGMENT_S="30")
    until(lambda: rows(core, "SELECT id FROM job WHERE step = 'segmenting'"))
    service.kill("worker")
    service.start("listener")
    service.start("worker", TEST_SEGMENT_S="2")
    until(lambda: rows(core, "SELECT id FROM job WHERE attempt = 2 AND step = 'segmenting'"))
    orthanc.stop()  # before the result can be stored
    until(lambda: rows(core, "SELECT id FROM job WHERE postponements = 1"))
    orthanc.start()
    done_once(core, orthanc)
    assert len(rows(core, "SELECT id FROM job")) == 1
    assert list(core.settings.spool_at.rglob("*.dcm")) == []  # of the killed one, too


def follow_until_taken(core: CoreServices, *, listeners: int = 1) -> None:
    """Look at the PACS again and again until a series has a job."""
    (pacs,) = read_pacs_file(core.settings.pacs_file).pacs
    with ExitStack() as stack:
        clients = [stack.enter_context(PacsClient(pacs, core.limits)) for _ in range(listeners)]
        following = [Listener(core, client) for client in clients]
        with ThreadPoolExecutor(listeners) as pool:
            give_up_at = time.monotonic() + WITHIN_S
            while not rows(core, "SELECT id FROM job"):
                assert time.monotonic() < give_up_at, "nothing was taken"
                list(pool.map(lambda one: one.look(), following))
            list(pool.map(lambda one: one.look(), following))


def test_many_listeners_make_one_job(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    sent(orthanc, tmp_path / "s")
    follow_until_taken(core, listeners=6)
    assert work() == 1
    follow_until_taken(core, listeners=6)  # what is stored is none of their business
    assert work() == 0
    assert len(orthanc.found("SEG")) == 1


def test_a_pacs_without_a_list_of_changes_is_followed_by_queries(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    write_pacs_file(core.settings.data_dir / "pacs.toml", orthanc, follow="qido")
    sent(orthanc, tmp_path / "old", StudyDate="20010101")  # beyond `watch_days`
    study, _ = sent(orthanc, tmp_path / "s", StudyDate=time.strftime("%Y%m%d"))
    follow_until_taken(core)
    assert work() == 1
    assert [found for found, _ in orthanc.found("SEG")] == [study]
    assert len(rows(core, "SELECT pacs FROM pacs_series")) == 1


def test_a_series_that_grows_before_its_job_is_done_is_segmented_as_a_whole(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    files = write_series(tmp_path / "s")
    orthanc.send(files[:-2])
    follow_until_taken(core)
    orthanc.send(files[-2:])
    (pacs,) = read_pacs_file(core.settings.pacs_file).pacs
    with PacsClient(pacs, core.limits) as client:
        listener = Listener(core, client)
        listener.look()  # hears of the two while the job is unfinished
        assert work() == 1
        until(lambda: listener.look() or work())
    ended_so = rows(core, "SELECT state, error_code FROM job ORDER BY created_at")
    assert [tuple(one) for one in ended_so] == [("failed", "series_grew"), ("succeeded", None)]
    assert len(orthanc.found("SEG")) == 1


def test_a_series_of_whose_growth_nobody_tells_is_segmented_as_a_whole(
    core: CoreServices,
    orthanc: Orthanc,
    work: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pacs_file(core.settings.data_dir / "pacs.toml", orthanc, follow="qido")
    find = PacsClient.find_series

    def uncounted(client: PacsClient, filters: Any) -> Iterator[Any]:
        return (replace(one, count=None) for one in find(client, filters))

    monkeypatch.setattr(PacsClient, "find_series", uncounted)
    files = write_series(tmp_path / "s", StudyDate=time.strftime("%Y%m%d"))
    orthanc.send(files[:-2])
    follow_until_taken(core)
    orthanc.send(files[-2:])
    assert work() == 1
    (pacs,) = read_pacs_file(core.settings.pacs_file).pacs
    with PacsClient(pacs, core.limits) as client:
        listener = Listener(core, client)
        until(lambda: listener.look() or work(), 20)
    ended_so = rows(core, "SELECT state, error_code FROM job ORDER BY created_at")
    assert [tuple(one) for one in ended_so] == [("failed", "series_grew"), ("succeeded", None)]


def test_a_series_whose_pacs_went_away_for_long_is_taken_again_with_the_same_uids(
    core: CoreServices, orthanc: Orthanc, work: Callable[[], int], tmp_path: Path
) -> None:
    sent(orthanc, tmp_path / "s")
    follow_until_taken(core)
    (first,) = rows(core, "SELECT id, payload ->> 'seed' AS seed FROM job")
    core.leases.claim(first.id, "w")
    core.leases.fail(first.id, 1, "pacs_unreachable", "It stayed away.")
    (pacs,) = read_pacs_file(core.settings.pacs_file).pacs
    with PacsClient(pacs, core.limits) as client:
        listener = Listener(core, client)
        until(lambda: listener.look() or work())
    second = rows(core, "SELECT payload ->> 'seed' AS seed, state FROM job ORDER BY created_at")[1]
    assert (second.seed, second.state) == (first.seed, "succeeded")
    assert len(orthanc.found("SEG")) == 1


def test_a_pacs_that_refuses_results_fails_the_job_with_its_reason(
    core: CoreServices, tmp_path: Path, work: Callable[[], int]
) -> None:
    lua = "function IncomingHttpRequestFilter(method) return method == 'GET' end"
    with running_orthanc(lua=lua) as refusing:
        write_pacs_file(core.settings.data_dir / "pacs.toml", refusing)
        job = core.jobs.submit_pacs(PacsPayload("main", *sent(refusing, tmp_path / "s")))
        work()
    done = ended(core, job)
    assert (done.state, done.error_code) == (JobState.FAILED, "store_rejected")
    assert "answered 403 Forbidden" in str(done.error_detail)
