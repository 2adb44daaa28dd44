"""How long a pack is kept, as a table; what is to be copied into the archive. Pure.

Retention begins with the study's date, or with its arrival where that is missing or later than the arrival, or so old
that the time would be over as it comes: a lock needs a date to come. The first rule that applies gives the years; later
ones (minors: until so many years after coming of age; legal holds) are rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from schemas.events import PackArchived, PackStored
from schemas.identity import derived_id
from streams.effects import CopyPack, Emit
from streams.facts import day_of

LOCK_DAYS_MIN = 30


@dataclass(frozen=True)
class Kept:
    """What a rule may look at."""

    study_date: str
    """YYYYMMDD or ""."""
    arrival_ms: int
    """Log time of its pack-stored."""

    @property
    def dated(self) -> bool:
        """Whether the study's own date counts."""
        return bool(self.study_date) and self.study_date <= day_of(self.arrival_ms)

    def lasts(self, years: int) -> bool:
        """Whether so many years from the study's date are not over for LOCK_DAYS_MIN days after its arrival."""
        soon = day_of(self.arrival_ms + LOCK_DAYS_MIN * 86_400_000)
        return _years_later(_date(self.study_date), years).strftime("%Y%m%d") > soon


@dataclass(frozen=True)
class Rule:
    """Packs that `applies` to are kept `years`, or the installation's least time where that is longer."""

    policy: str
    applies: Callable[[Kept], bool]
    begins: Callable[[Kept], str]
    """Day from which the years count, YYYYMMDD."""
    years: int


RULES: tuple[Rule, ...] = (
    Rule("study-date", lambda k: k.dated and k.lasts(5), lambda k: k.study_date, 5),
    Rule("arrival", lambda k: True, lambda k: day_of(k.arrival_ms), 5),
)


def retain_until(kept: Kept, least_years: int) -> tuple[str, str]:
    """(RFC 3339 time, code of the rule). The whole last day is kept."""
    rule = next(r for r in RULES if r.applies(kept))
    years = max(rule.years, least_years)
    last = _years_later(_date(rule.begins(kept)), years) + timedelta(days=1)
    return f"{last.isoformat()}T00:00:00Z", f"{rule.policy}-{years}y"


def _date(day: str) -> date:
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date()


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return date(day.year + years, 3, 1)


def copy_of(event: PackStored, kept: Kept, least_years: int) -> CopyPack:
    """What has to be done for a pack."""
    until, policy = retain_until(kept, least_years)
    return CopyPack(
        pack_id=event.pack_id,
        study_uid=event.study_uid,
        bucket=event.bucket,
        pack_key=event.pack_key,
        pack_size=event.pack_size,
        pack_sha256=event.pack_sha256,
        manifest_key=event.manifest_key,
        manifest_sha256=event.manifest_sha256,
        retain_until=until,
        policy=policy,
    )


def archived(copy: CopyPack, bucket: str, version_id: str, manifest_version_id: str) -> Emit:
    """The event, once both copies are verified."""
    event = PackArchived(
        pack_id=copy.pack_id,
        study_uid=copy.study_uid,
        bucket=bucket,
        pack_key=copy.pack_key,
        version_id=version_id,
        size=copy.pack_size,
        sha256=copy.pack_sha256,
        manifest_key=copy.manifest_key,
        manifest_version_id=manifest_version_id,
        manifest_sha256=copy.manifest_sha256,
        retain_until=copy.retain_until,
        policy=copy.policy,
    )
    return Emit(event, derived_id("pack.archived", copy.pack_id), copy.study_uid)
