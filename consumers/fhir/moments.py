"""Dates and times of DICOM as FHIR R4 has them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Final

_TIME: Final = re.compile(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6}))?)?)?\Z")
_OFFSET: Final = re.compile(r"([+-])([0-9]{2})([0-9]{2})\Z")


def day(dicom: str) -> str:
    """`YYYYMMDD` as `YYYY-MM-DD`; empty for what is no date."""
    try:
        return datetime.strptime(dicom, "%Y%m%d").replace(tzinfo=UTC).date().isoformat() if len(dicom) == 8 else ""
    except ValueError:
        return ""


def date_time(dicom_date: str, dicom_time: str, zone: tzinfo) -> str:
    """A FHIR dateTime of a DA and a TM. A time needs a zone there: the equipment's, which is `zone` unless the dataset
    says another one. Without a time (or with one that is none) the day alone; empty without a day.
    """
    found, on = _TIME.match(dicom_time), day(dicom_date)
    if not on or not found:
        return on
    hour, minute, second, fraction = (found[n] or "" for n in range(1, 5))
    at = date.fromisoformat(on)
    try:
        moment = datetime(
            at.year, at.month, at.day, int(hour), int(minute or 0), min(int(second or 0), 59), tzinfo=zone
        )  # DICOM knows a 60th second
    except ValueError:
        return on
    return moment.replace(microsecond=int(fraction.ljust(6, "0") or 0)).isoformat(
        timespec="milliseconds" if fraction else "seconds"
    )


def zone_of(offset: str, fallback: tzinfo) -> tzinfo:
    """The zone of a dataset's Timezone Offset From UTC (0008,0201), `&ZZXX`; another where it has none."""
    found = _OFFSET.match(offset)
    if not found:
        return fallback
    delta = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-delta if found[1] == "-" else delta) if delta <= timedelta(hours=14) else fallback


def instant(moment: datetime) -> str:
    """A FHIR instant, UTC."""
    at = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
