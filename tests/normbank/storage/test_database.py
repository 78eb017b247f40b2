"""Connections."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from normbank.storage.database import make_engine


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_every_spelling_of_the_url_means_psycopg_3(scheme: str) -> None:
    engine = make_engine(f"{scheme}://user:pw@db.example/normbank")
    assert engine.driver == "psycopg"
    engine.dispose()


def test_a_connection_that_the_server_closed_is_replaced(database_url: str) -> None:
    engine = make_engine(database_url)
    killer = make_engine(database_url)
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with killer.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
    killer.dispose()


def test_times_are_told_in_utc(engine: Engine) -> None:
    with engine.connect() as connection:
        now = connection.execute(text("SELECT now()")).scalar_one()
    assert now.utcoffset().total_seconds() == 0
