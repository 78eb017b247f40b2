"""Whether stored files are still what was put there, and nothing lies there for nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from normbank.services.files import StoredFiles
from normbank.storage.blobs import BlobStore
from normbank.storage.integrity import IntegrityStore
from normbank.storage.references import BlobReferences

log = logging.getLogger(__name__)

DAY_S = 86_400.0
CORRUPT_BLOBS = "corrupt_blobs"
REJECTED_STATES = "rejected_states"
FLAGS = "flag:"
"""Before a flag's code: answers that had it, or were held back for it."""


class Integrity:
    """Bad files, orphans and the counts of what went wrong, over all processes.

    Parameters
    ----------
    sessions : makes database sessions
    blobs : where the files lie; reports here what is read and bad
    files : knows which of them may be deleted
    """

    def __init__(
        self, sessions: sessionmaker[Session], blobs: BlobStore, files: StoredFiles
    ) -> None:
        self._sessions, self._blobs, self._files = sessions, blobs, files
        self._prefixes_known = False
        blobs.report_to(self._note_corrupt, self._note_mended)

    def count_up(self, name: str) -> None:
        """Count one more event of a kind; a database that is away is no reason to fail."""
        try:
            with self._sessions.begin() as session:
                IntegrityStore(session).count_up(name)
        except SQLAlchemyError as error:
            log.warning("not counted", extra={"tally": name, "error": type(error).__name__})

    def tallies(self) -> dict[str, int]:
        """Every count by its name: `CORRUPT_BLOBS`, `REJECTED_STATES`, `FLAGS` with a code."""
        with self._sessions() as session:
            return IntegrityStore(session).tallies()

    def count_corrupt(self) -> int:
        """How many files are known to be bad, or gone though a row points to them."""
        with self._sessions() as session:
            return IntegrityStore(session).count_corrupt()

    def scrub_next(
        self, pace: Callable[[int], object] = lambda _count: None, every_s: float = DAY_S
    ) -> str | None:
        """Read the files of the prefix that waits longest, and compare them.

        Files that no row points to are deleted a day after they were written.
        Any number of processes may do this at once, each with its own prefix.

        Parameters
        ----------
        pace : called with the bytes of each chunk that was read, to slow it down
        every_s : how often each prefix is due

        Returns
        -------
        the prefix; None when none is due
        """
        with self._sessions.begin() as session:
            store = IntegrityStore(session)
            if not self._prefixes_known:
                store.add_prefixes(self._blobs.prefixes())
            prefix = store.claim_prefix(every_s)
        self._prefixes_known = True
        if prefix is not None:
            self._scrub(prefix, pace)
        return prefix

    def sweep_incoming(self) -> int:
        """Remove what was being stored when its process was killed; how many files."""
        return self._blobs.sweep_incoming(DAY_S)

    def _scrub(self, prefix: str, pace: Callable[[int], object]) -> None:
        with self._sessions() as session:
            bad_before = set(IntegrityStore(session).corrupt(prefix))
        stored = self._blobs.stored(prefix)
        bad = {sha256 for sha256 in stored if not self._is_in_order(sha256, pace)}
        bad |= self._missing(prefix, set(stored))
        for sha256 in sorted(bad_before - bad):
            self._note_mended(sha256)

    def _is_in_order(self, sha256: str, pace: Callable[[int], object]) -> bool:
        """Delete a file that is nobody's, else compare it."""
        try:
            if self._blobs.age_s(sha256) > DAY_S and not self._is_referenced(sha256):
                self._files.discard([sha256])
                return True
            return self._blobs.is_sound(sha256, pace)
        except FileNotFoundError:  # deleted meanwhile
            return True

    def _is_referenced(self, sha256: str) -> bool:
        with self._sessions() as session:
            return BlobReferences(session).exist(sha256)

    def _missing(self, prefix: str, stored: set[str]) -> set[str]:
        """Files that rows point to and that are gone."""
        with self._sessions() as session:
            pointed = BlobReferences(session).beginning_with(prefix)
        missing = {
            sha256
            for sha256 in pointed - stored
            if not self._blobs.exists(sha256) and self._is_referenced(sha256)
        }
        for sha256 in sorted(missing):
            self._blobs.report_corrupt(sha256)
        return missing

    def _note_corrupt(self, sha256: str) -> None:
        try:
            with self._sessions.begin() as session:
                IntegrityStore(session).add_corrupt(sha256)
                IntegrityStore(session).count_up(CORRUPT_BLOBS)
        except SQLAlchemyError as error:  # the alarm is in the log
            log.warning("a bad file was not recorded", extra={"error": type(error).__name__})

    def _note_mended(self, sha256: str) -> None:
        try:
            with self._sessions.begin() as session:
                IntegrityStore(session).drop_corrupt(sha256)
        except SQLAlchemyError as error:  # the next scrub sees it
            log.warning("a mended file was not recorded", extra={"error": type(error).__name__})
