"""The question that each server is asked: does it answer?

Apart from `heartbeat`, whose small imports the reaper shares.
"""

from __future__ import annotations

from functools import cache

import httpx
import psycopg
import redis
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from normbank.services.workers import Workers, worker_name
from normbank.storage.database import make_engine, make_sessions

ANSWER_WITHIN_S = 4.5
BEAT_WITHIN_S = 5.0


def api_answers(url: str) -> bool:
    """Whether `/livez` answers, which needs the event loop alone."""
    try:
        answer = httpx.get(f"{url}/livez", timeout=ANSWER_WITHIN_S, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success


def postgres_answers(database_url: str) -> bool:
    """Whether the server speaks to a new connection, be it only to refuse it."""
    url = make_url(database_url).set(drivername="postgresql")
    try:
        # libpq takes whole seconds.
        with psycopg.connect(
            url.render_as_string(hide_password=False),
            connect_timeout=int(ANSWER_WITHIN_S),
            application_name="normbank up",
        ):
            return True
    except psycopg.OperationalError as error:
        return "FATAL" in str(error)


def valkey_answers(redis_url: str) -> bool:
    """Whether the server speaks, be it only to say that it is loading."""
    within = {"socket_timeout": ANSWER_WITHIN_S, "socket_connect_timeout": ANSWER_WITHIN_S}
    with redis.Redis.from_url(redis_url, retry=None, **within) as client:
        try:
            return bool(client.ping())
        except (redis.ResponseError, redis.BusyLoadingError):
            return True
        except redis.RedisError:
            return False


def worker_beats(database_url: str, main_pid: int) -> bool:
    """Whether both processes of a worker of this machine were seen lately.

    Without a database nobody can say: then it is left alone.
    """
    try:
        silent_s = _workers(database_url).silent_s(worker_name(main_pid))
    except SQLAlchemyError:
        return True
    return silent_s is not None and silent_s <= BEAT_WITHIN_S


@cache
def _workers(database_url: str) -> Workers:
    return Workers(make_sessions(make_engine(database_url, pool_size=1)))
