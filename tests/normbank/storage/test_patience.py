"""How much waiting is left: spent on answers and on threads, not on the client or the network."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from normbank.config import Settings
from normbank.storage.database import make_engine
from normbank.storage.patience import LEAST_S, Patience, Waits, patient


def test_what_one_answer_takes_the_next_has_less() -> None:
    patience = Patience(1.0)
    with patience.waiting() as first_s:
        time.sleep(0.3)
    with patience.waiting() as second_s:
        pass
    assert first_s == pytest.approx(1.0, abs=0.05)
    assert second_s == pytest.approx(0.7, abs=0.1)


def test_the_wait_for_a_thread_counts_and_the_clients_time_does_not() -> None:
    patience = Patience(1.0)
    time.sleep(0.3)
    patience.queue()  # the client has sent its body until now
    time.sleep(0.2)
    with patience.waiting() as left_s:
        pass
    assert left_s == pytest.approx(0.8, abs=0.1)


def test_a_request_that_has_computed_for_long_still_gets_an_answer() -> None:
    patience = Patience(0.5)
    time.sleep(0.7)
    with patience.waiting() as left_s:
        assert left_s == LEAST_S


def test_a_statement_is_given_up_with_its_connection_and_the_next_one_works(
    database_url: str,
) -> None:
    engine = make_engine(database_url)
    started = time.monotonic()
    with patient(0.5), engine.connect() as connection:
        with pytest.raises(OperationalError, match="not answered"):
            connection.execute(text("SELECT pg_sleep(5)"))
        with pytest.raises(OperationalError, match="no time left"):
            make_engine(database_url).connect()
    assert time.monotonic() - started < 2.0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_the_server_knows_the_limits_of_the_settings(database_url: str) -> None:
    settings = Settings(lock_timeout_s=1.5, statement_timeout_s=20, idle_transaction_s=40)
    engine = make_engine(database_url, waits=Waits.of(settings))
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    with engine.connect() as connection:
        limits = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
    assert limits == ["1500ms", "20s", "40s"]
    engine.dispose()
