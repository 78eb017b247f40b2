"""Rows of what the listener has seen of each PACS."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from normbank.entities.pacs import SeenSeries, SettlingSeries
from normbank.schema import JobRow, PacsRow, PacsSeriesRow

SETTLING, TAKEN, DONE = "settling", "taken", "done"
LOOKED_AT_ONCE = 500


class WatchedStore:
    """One transaction over one PACS.

    Parameters
    ----------
    session : of the transaction
    pacs : name; its row is made when it is missing
    """

    def __init__(self, session: Session, pacs: str) -> None:
        self._session, self._pacs = session, pacs
        fresh = insert(PacsRow).values(name=pacs, salt=secrets.token_hex(16))
        session.execute(fresh.on_conflict_do_nothing())
        self._row = session.get_one(PacsRow, pacs)

    @property
    def cursor(self) -> int:
        """How far the PACS's list of changes was followed."""
        return self._row.cursor

    def move_cursor(self, cursor: int) -> None:
        self._row.cursor = cursor
        self._row.looked_at = self._session.scalars(select(func.now())).one()
        self._session.flush()

    def hashed(self, *texts: str) -> str:
        """What UIDs are remembered by."""
        return hashlib.sha256("|".join((self._row.salt, *texts)).encode()).hexdigest()

    def notice(self, seen: Sequence[SeenSeries]) -> None:
        """Write down series that are new; those that have changed settle again.

        One whose job is unfinished does so when that has ended.
        """
        hashes = {self.hashed(one.series): one for one in seen}
        known = self._known(list(hashes))
        for series_hash, one in sorted(hashes.items()):
            counted = one.instances is not None and one.instances != known.get(series_hash)
            if one.changed or counted or series_hash not in known:
                self._notice_one(series_hash, one)

    def _known(self, hashes: Sequence[str]) -> dict[str, int | None]:
        """How many instances the noticed ones of some series had."""
        statement = select(PacsSeriesRow.series_hash, PacsSeriesRow.instances).where(
            PacsSeriesRow.pacs == self._pacs, PacsSeriesRow.series_hash.in_(hashes)
        )
        rows = self._session.execute(statement)
        return {row.series_hash: row.instances for row in rows}

    def _notice_one(self, series_hash: str, seen: SeenSeries) -> None:
        uids = {"study": seen.study, "series": seen.series}
        row = insert(PacsSeriesRow).values(pacs=self._pacs, series_hash=series_hash, **uids)
        done = PacsSeriesRow.state == DONE
        changes = {
            **uids,
            "state": case((done, SETTLING), else_=PacsSeriesRow.state),
            "stirred": PacsSeriesRow.state == TAKEN,
            "changed_at": func.clock_timestamp(),
        }
        self._session.execute(
            row.on_conflict_do_update(
                constraint="pk_pacs_series",
                set_=changes,
                where=PacsSeriesRow.state != SETTLING,
            )
        )

    def settling(self) -> Sequence[SettlingSeries]:
        """Series of which more may come, those first that were quiet for longest."""
        quiet_s = func.extract("epoch", func.clock_timestamp() - PacsSeriesRow.changed_at)
        columns = (PacsSeriesRow.study, PacsSeriesRow.series, PacsSeriesRow.instances, quiet_s)
        statement = (
            select(*columns)
            .where(PacsSeriesRow.pacs == self._pacs, PacsSeriesRow.state == SETTLING)
            .order_by(PacsSeriesRow.changed_at)
            .limit(LOOKED_AT_ONCE)
        )
        return [
            SettlingSeries(str(study), str(series), instances, float(quiet))
            for study, series, instances, quiet in self._session.execute(statement)
        ]

    def locked(self, series: str) -> PacsSeriesRow:
        """A noticed series' row, locked until the transaction ends."""
        return self._session.get_one(
            PacsSeriesRow,
            (self._pacs, self.hashed(series)),
            with_for_update=True,
            populate_existing=True,
        )

    def count(self, row: PacsSeriesRow, instances: int | None) -> None:
        """Write down another number of instances; the series is not quiet any more."""
        row.instances = instances
        row.changed_at = self._session.scalars(select(func.clock_timestamp())).one()
        self._session.flush()

    def finish(self, row: PacsSeriesRow, passed_over: str | None = None) -> None:
        """Nothing more is to be done with a series as it is: forget its UIDs."""
        row.state, row.study, row.series = DONE, None, None
        row.passed_over = passed_over
        self._session.flush()

    def finish_ended(self, retried: Sequence[str]) -> None:
        """Series whose jobs have ended are done with.

        Parameters
        ----------
        retried : codes of errors after which a series is taken again
        """
        ended = select(JobRow.id).where(
            JobRow.id == PacsSeriesRow.job_id, JobRow.finished_at.is_not(None)
        )
        again = ended.where(JobRow.error_code.in_(retried)).exists()
        taken = (PacsSeriesRow.pacs == self._pacs) & (PacsSeriesRow.state == TAKEN)
        settling = {"state": SETTLING, "stirred": False}
        for condition, values in (
            (again, {**settling, "content": None}),
            (PacsSeriesRow.stirred & ended.exists(), settling),
            (ended.exists(), {"state": DONE, "study": None, "series": None}),
        ):
            self._session.execute(update(PacsSeriesRow).where(taken, condition).values(**values))
