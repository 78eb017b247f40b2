"""How many uploads, and how many bytes of them, are taken at once.

Only the event loop asks, so nothing here needs a lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.http.errors import TooManyUploadsError
from normbank.config import Settings
from normbank.errors import BusyError

RETRY_S = 5


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What may be taken at once, of one key and of all together.

    Attributes
    ----------
    uploads, uploads_per_key : that arrive
    bytes, bytes_per_key : of uploads that lie on disk
    """

    uploads: int
    uploads_per_key: int
    bytes: int
    bytes_per_key: int

    @classmethod
    def of(cls, settings: Settings) -> GateLimits:
        return cls(
            settings.uploads,
            settings.uploads_per_key,
            settings.spool_bytes,
            settings.spool_bytes_per_key,
        )


@dataclass(slots=True)
class _Taken:
    uploads: int = 0
    bytes: int = 0


class UploadGate:
    """Counts what arrives, by key and in all, and refuses what is too much."""

    def __init__(self, limits: GateLimits) -> None:
        self._limits = limits
        self._all = _Taken()
        self._by_key: defaultdict[str, _Taken] = defaultdict(_Taken)

    def gauges(self) -> dict[str, float]:
        """What Prometheus shall see of it now."""
        return {
            "uploads_arriving": float(self._all.uploads),
            "spooled_bytes": float(self._all.bytes),
        }

    @contextmanager
    def enter(self, key_id: str, declared: int) -> Iterator[Arrival]:
        """Let one upload in, until the end of the block, where its files are gone.

        Parameters
        ----------
        declared : its Content-Length, 0 where it has none; refused now if there is no
            room for so much, but room is taken only by what arrives

        Raises
        ------
        TooManyUploadsError
            Of this key.
        BusyError
            `uploads_full`, of all keys together.
        """
        mine, limits = self._by_key[key_id], self._limits
        arrival = Arrival(mine, self._all, limits)
        try:
            if mine.uploads >= limits.uploads_per_key:
                raise TooManyUploadsError(
                    "Too many uploads of this key arrive at once.", retry_after_s=RETRY_S
                )
            if self._all.uploads >= limits.uploads:
                raise _full("Too many uploads arrive at once.")
            arrival.check_room(declared)
            arrival.begin()
            yield arrival
        finally:
            arrival.end()
            if mine == _Taken():
                self._by_key.pop(key_id, None)


class Arrival:
    """One upload that was let in."""

    def __init__(self, mine: _Taken, everyones: _Taken, limits: GateLimits) -> None:
        self._taken = (mine, everyones)
        self._limits = limits
        self._arriving = False
        self._bytes = 0

    def begin(self) -> None:
        self._arriving = True
        for taken in self._taken:
            taken.uploads += 1

    def add(self, size: int) -> None:
        """So many bytes more have come.

        Raises
        ------
        TooManyUploadsError, BusyError
            If they are too many.
        """
        self.check_room(size)
        self._bytes += size
        for taken in self._taken:
            taken.bytes += size

    def check_room(self, size: int) -> None:
        """Raise TooManyUploadsError or BusyError where so many bytes more would be too many."""
        mine, everyones = self._taken
        if mine.bytes + size > self._limits.bytes_per_key:
            raise TooManyUploadsError(
                "The uploads of this key are too large together.", retry_after_s=RETRY_S
            )
        if everyones.bytes + size > self._limits.bytes:
            raise _full("The uploads that are read now are too large together.")

    def is_whole(self) -> None:
        """Nothing more comes: it counts no more as an upload, its bytes lie there still."""
        if self._arriving:
            self._arriving = False
            for taken in self._taken:
                taken.uploads -= 1

    def end(self) -> None:
        """Its files are gone."""
        self.is_whole()
        for taken in self._taken:
            taken.bytes -= self._bytes
        self._bytes = 0


def _full(message: str) -> BusyError:
    return BusyError(message, retry_after_s=RETRY_S, code="uploads_full")
