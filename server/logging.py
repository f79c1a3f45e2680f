"""Logs to standard error, a line an event, as text or as JSON: date with zone, level, part, request id, message.

Parts take `logging.getLogger("tailor.<part>")`. What users write is never logged, only ids and counts; so of an error
that nobody expected only those messages are written that cannot quote it. Knows nothing of HTTP.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from server.config import LoggingSettings

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request on whose behalf this task or thread runs; '' where there is none."""

# Errors of the code or of the system: their messages name no value that a user gave.
_PLAIN = (AttributeError, TypeError, NameError, ImportError, MemoryError, RuntimeError, sqlite3.Error)


def setup(settings: LoggingSettings | None = None) -> None:
    """Logs to standard error. Quiets the libraries that report every request or file."""
    chosen = settings or LoggingSettings()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if chosen.format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tailor").setLevel(chosen.level.upper())


class TextLines(logging.Formatter):
    """2026-01-31T09:30:00.123+01:00 INFO tailor.api [request id] message"""

    def format(self, record: logging.LogRecord) -> str:
        marks = f"{_time(record)} {record.levelname} {record.name} [{request_id.get() or '-'}]"
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")  # one event, one line
        return f"{marks} {message}" + (f"\n{_traceback(record)}" if record.exc_info else "")


class JsonLines(logging.Formatter):
    """One object a line. A record's `fields` (a dict) are members of it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname, "logger": record.name}
        if request_id.get():
            line["request_id"] = request_id.get()
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = _traceback(record)
        return json.dumps(line | getattr(record, "fields", {}), ensure_ascii=False, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")


def _traceback(record: logging.LogRecord) -> str:
    """Where it was raised and by what; the causes first, as Python writes them."""
    parts: list[str] = []
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.insert(0, f"Traceback (most recent call last):\n{frames}{type(error).__name__}{_message(error)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)


def _message(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f": {error.strerror}" if error.strerror else ""  # without the file's name
    return f": {error}" if isinstance(error, _PLAIN) else ""
