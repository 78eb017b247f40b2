"""Structured logs: one JSON object per line, and only fields somebody chose."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """Format a record and its `extra` fields as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update({k: v for k, v in vars(record).items() if k not in _PLAIN})
        if record.exc_info and record.exc_info[0]:
            # Type and place alone: a message may quote what a client sent.
            line["error"] = record.exc_info[0].__name__
            line["frames"] = frames_of(record.exc_info[2])
        return json.dumps(line, default=str)


def frames_of(traceback_: TracebackType | None, most: int = 12) -> list[str]:
    """Where an error came from, innermost last: file, line and function."""
    return [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(traceback_)[-most:]
    ]


def configure_logging(level: str) -> None:
    """Send our records to standard error as JSON lines.

    uvicorn's own line per request is switched off: it holds the path as the
    client wrote it, and `app.http.middleware` writes one with the route's template.
    """
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("app", "worker", "pipeline", "normbank", "models", "celery"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(JsonLines())
            logger.addHandler(handler)
