"""Logs and metrics: the only ones. A log line is one JSON object on stderr, and holds nothing about a patient.

Three guards, each of which holds alone:

1. Our own lines carry fields from `FIELDS` only; another name is withheld and listed under `withheld`.
2. A library's line carries its format string, not its arguments, unless the library is in `PLAIN`; the loggers in
   `SILENT` put values straight into the text (pydicom: `Invalid value for VR DA: '…'`), so of them only a
   count is kept.
3. Of an exception its type and its places in the code are logged; its text only if it is a `SijilError`, whose texts
   hold ids alone.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from typing import Any, Final, TextIO

from prometheus_client import Counter, Gauge, Histogram

from infra import clock
from schemas.errors import SijilError

__all__ = ["FIELDS", "Counter", "Gauge", "Histogram", "Log", "logger", "setup"]

_IDS = """event_id event_type pack_id order_id report_id access_id delivery_id association_id request_id study_uid
    series_uid sop_uid sop_class_uid transfer_syntax_uid site ae_title role instance source version"""
_PLACES = """topic partition offset end_offset group sequence keyspace table statement bucket key pid port host path
    part command setting migration folder
    destination"""
_FIGURES = """reason status error attempt delay_s seconds milliseconds bytes count instances packs rows events lag
    backlog backlog_bytes free_mb limit_mb total done signal exit_status state"""

FIELDS: Final = frozenset(f"{_IDS} {_PLACES} {_FIGURES}".split())
"""Names a log line of ours may have: ids, places in the log, in S3 and on this machine, figures."""

PLAIN: Final = ("aiokafka", "uvicorn.error")
"""Loggers of libraries whose arguments are addresses, topics and offsets."""

SILENT: Final = (
    "pydicom",
    "pynetdicom",
    "uvicorn.access",
    "httpx",
    "httpcore",
    "botocore",
    "urllib3",
    "fpdf",
    "fontTools",
)
"""Loggers of libraries that see data sets, query strings or keys: their lines are only counted."""

LIBRARY_LINES: Final = Counter("sijil_library_log_lines", "Log lines of libraries whose text is withheld", ["library"])
WARNINGS: Final = Counter("sijil_python_warnings", "Python warnings whose text is withheld", ["category"])

_OURS: Final = ("infra", "producers", "streams", "consumers", "schemas", "sijil")


class Log:
    """A logger whose message is a constant (`pack.uploaded`) and whose facts are fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: object) -> None:
        """For who reads the code."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """What an operator may want to know."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """What repairs itself, or does not matter yet."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, *, error: BaseException | None = None, **fields: object) -> None:
        """What somebody has to look at. `error` is logged by the rules of this module's docstring."""
        self._log(logging.ERROR, message, fields, error)

    def _log(self, level: int, message: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, extra={"fields": fields}, exc_info=error)


def logger(name: str) -> Log:
    """The logger of a module: `log = telemetry.logger(__name__)`."""
    return Log(name)


class JsonFormatter(logging.Formatter):
    """LogRecord → one line of JSON, by the three guards."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": clock.rfc3339(clock.now()),
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": _message(record),
        }
        fields: dict[str, object] = getattr(record, "fields", {})
        line.update({k: v for k, v in fields.items() if k in FIELDS})
        if withheld := sorted(set(fields) - FIELDS):
            line["withheld"] = withheld
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def _message(record: logging.LogRecord) -> str:
    if _under(record.name, SILENT):
        return "(text withheld)"
    if _under(record.name, _OURS) or _under(record.name, PLAIN):
        return record.getMessage()
    return str(record.msg) if isinstance(record.msg, str) else type(record.msg).__name__


def describe(error: BaseException) -> dict[str, object]:
    """Type, places, cause; the text only of our own errors."""
    told: dict[str, object] = {
        "type": type(error).__qualname__,
        "at": [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)][-12:],
    }
    if isinstance(error, SijilError):
        told["text"] = str(error)
    if error.__cause__ is not None:
        told["cause"] = describe(error.__cause__)
    return told


class _Silence(logging.Filter):
    """Counts and drops what a SILENT logger says, unless an exception comes with it, which is told by rule 3."""

    def filter(self, record: logging.LogRecord) -> bool:
        library = _under(record.name, SILENT)
        if not library or record.exc_info:
            return True
        LIBRARY_LINES.labels(library).inc()
        return False


def _under(name: str, loggers: tuple[str, ...]) -> str:
    """Which of `loggers` is `name` or its parent; empty if none."""
    return next((root for root in loggers if name == root or name.startswith(root + ".")), "")


def setup(process: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Make this process log as `process`, one JSON line each to `stream` (stderr); replaces the root's handlers."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    handler.addFilter(_Silence())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in _OURS:
        logging.getLogger(ours).setLevel(level)
    log = logger("sijil")

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        WARNINGS.labels(category.__name__).inc()

    def uncaught(kind: type[BaseException], error: BaseException, _: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.error("uncaught", error=error)

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error("uncaught in a thread", error=args.exc_value)

    warnings.showwarning = show
    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
