"""Connections to PostgreSQL that do not wait for ever; see `normbank.storage.patience`."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy.exc import InvalidatePoolError

from normbank.storage.patience import allowance, is_exhausted, note_silence

RV = TypeVar("RV")

CONNECT_TIMEOUT_S = 5
LEAST_CONNECT_S = 2
"""psycopg, like libpq, tries no shorter."""

PING_S = 2.0


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when its server does not answer in time.

    Attributes
    ----------
    answer_s : seconds that one answer may take; None: any
    """

    answer_s: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Run a dialogue with the server.

        Raises
        ------
        psycopg.OperationalError
            No answer in time; the connection is closed.
        """
        with allowance(self.answer_s) as limit_s:
            if limit_s is None or (timeout is not None and timeout < limit_s):
                return super().wait(gen, interval, timeout)
            silent_at = time.monotonic() + limit_s
            try:
                return super().wait(gen, interval, limit_s)
            except psycopg.OperationalError as error:
                if time.monotonic() < silent_at:
                    raise
                self.close()
                note_silence()
                raise psycopg.OperationalError(
                    f"PostgreSQL has not answered within {limit_s:.1f} s"
                ) from error


def connect_bounded(*arguments: Any, answer_s: float | None, **options: Any) -> BoundedConnection:
    """Connect with psycopg, within what patience is left.

    Parameters
    ----------
    arguments, options : psycopg's
    answer_s : seconds that an answer may take from then on; None: any

    Raises
    ------
    psycopg.OperationalError
    """
    with allowance(CONNECT_TIMEOUT_S) as limit_s:
        limit_s = CONNECT_TIMEOUT_S if limit_s is None else limit_s
        if limit_s < LEAST_CONNECT_S and is_exhausted():
            raise psycopg.OperationalError("there is no time left to connect to PostgreSQL")
        options["connect_timeout"] = max(int(limit_s), LEAST_CONNECT_S)
        try:
            connection = BoundedConnection.connect(*arguments, **options)
        except psycopg.Error as error:
            # Its traces hold the half-made connection, and a server that wakes would wait for it.
            error.__context__ = None
            raise error.with_traceback(None) from None
    connection.answer_s = answer_s
    return connection


def ping(connection: BoundedConnection) -> None:
    """Refuse a pooled connection that died, with all that are as old."""
    before, connection.answer_s = connection.answer_s, PING_S
    try:
        # No transaction: two round trips less.
        connection.autocommit = True
        connection.execute("SELECT 1")
        connection.autocommit = False
    except psycopg.Error as error:
        raise InvalidatePoolError from error
    finally:
        connection.answer_s = before
