import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from infra import telemetry
from schemas.errors import Transient

CANARY = "CANARY^محمد"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level, warnings.showwarning, sys.excepthook, threading.excepthook
    stream = io.StringIO()
    telemetry.setup("test", "DEBUG", stream)
    yield stream
    root.handlers[:], level, warnings.showwarning, sys.excepthook, threading.excepthook = kept
    root.setLevel(level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_holds_its_fields_and_withholds_what_is_not_on_the_list(lines: io.StringIO) -> None:
    telemetry.logger("producers.spool").info("pack.sealed", pack_id="0190", bytes=12, patient_name=CANARY)
    (line,) = read(lines)
    assert line["message"] == "pack.sealed"
    assert line["process"] == "test"
    assert (line["pack_id"], line["bytes"]) == ("0190", 12)
    assert line["withheld"] == ["patient_name"]
    assert CANARY not in lines.getvalue()


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom.events", "uvicorn.access"])
@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_loggers_that_see_data_sets_say_nothing(lines: io.StringIO, name: str, level: int) -> None:
    logging.getLogger(name).log(level, f"Invalid value for VR PN: {CANARY}")
    assert lines.getvalue() == ""


def test_an_exception_in_such_a_library_shows_type_and_place(lines: io.StringIO) -> None:
    try:
        int(CANARY)
    except ValueError:
        logging.getLogger("pynetdicom.events").exception(f"in the handler: {CANARY}")
    (line,) = read(lines)
    assert line["message"] == "(text withheld)"
    assert line["exception"]["type"] == "ValueError"
    assert CANARY not in lines.getvalue()


def test_a_library_line_shows_its_format_string_only(lines: io.StringIO) -> None:
    logging.getLogger("cassandra.cluster").warning("row %s of host", CANARY)
    (line,) = read(lines)
    assert line["message"] == "row %s of host"


def test_an_exception_shows_type_and_place_and_the_text_of_our_own_only(lines: io.StringIO) -> None:
    log = telemetry.logger("streams.worker")
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as e:
            raise Transient("step 3: pack 0190") from e
    except Transient as e:
        log.error("projection.failed", error=e)
    (line,) = read(lines)
    assert line["exception"]["text"] == "step 3: pack 0190"
    assert line["exception"]["cause"]["type"] == "ValueError"
    assert "test_telemetry.py" in line["exception"]["at"][0]
    assert CANARY not in lines.getvalue()


def test_warnings_and_uncaught_exceptions_keep_their_text_to_themselves(lines: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        telemetry.setup("test", "INFO", lines)
        warnings.warn(CANARY, stacklevel=1)
    thread = threading.Thread(target=lambda: int(CANARY))
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(CANARY), None)
    assert CANARY not in lines.getvalue()
    assert [line["message"] for line in read(lines)] == ["uncaught in a thread", "uncaught"]
