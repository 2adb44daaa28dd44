"""Lists for people who look after the archive: how long, of which months, and how a row is shown."""

from __future__ import annotations

import re
from typing import Any

from consumers.api.guard import Ask
from infra import clock
from infra.ports import Row
from schemas.errors import Invalid
from schemas.identity import is_patient_key

JSON = "application/json"
LIMIT, LIMIT_MAX = 100, 1000
MONTHS_BACK = 24
"""Months that an answer without a month looks back."""
PAGE = {"limit": f"most entries, at most {LIMIT_MAX}"}
MONTHS = {"month": f"YYYYMM; without it the last {MONTHS_BACK} months"}

_MONTH = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])\Z")


def without(row: Row, *columns: str) -> dict[str, Any]:
    """A row as JSON shows it: without the columns that the address said, and without what is not set."""
    return {n: v for n, v in row.items() if n not in columns and v is not None}


def limit_of(ask: Ask) -> int:
    """The option `limit`. Raises Invalid(`option-limit`)."""
    text = ask.option("limit") or str(LIMIT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LIMIT_MAX):
        raise Invalid("option-limit", f"limit must be a number from 1 to {LIMIT_MAX}")
    return int(text)


def months_of(ask: Ask) -> list[str]:
    """The month asked for, else those to look back on, newest first. Raises Invalid(`option-month`)."""
    month = ask.option("month")
    if month:
        if not _MONTH.match(month):
            raise Invalid("option-month", "month must be YYYYMM")
        return [month]
    now = clock.now()
    last = now.year * 12 + now.month - 1
    return [f"{m // 12:04}{m % 12 + 1:02}" for m in range(last, last - MONTHS_BACK, -1)]


def patient_key_of(ask: Ask) -> str:
    """The part `key` of the path. Raises Invalid(`patient-key`)."""
    return checked_key(ask.part("key"))


def checked_key(value: str) -> str:
    """A patient key. Raises Invalid(`patient-key`)."""
    if not is_patient_key(value):
        raise Invalid("patient-key", "a patient key is `k1:` and 43 characters")
    return value
