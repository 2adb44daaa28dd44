"""When a study is complete, and what else an arrival decides. Pure; a rebuild reads what was decided from the log.

A study is complete when the log has gone on for the quiet time without a new pack of it. Both sides of that are log
time, so a worker that lags decides as one that does not. Only where the log has ended, the clock stands for it.

Decided events have ids made of what decided them, so deciding again after a crash gives the same event.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from schemas.events import PackStored, PatientSeen, StudyCompleted, StudyReopened
from schemas.identity import PatientKey, derived_id
from schemas.tables import Delete, Upsert, Write
from streams.effects import Emit
from streams.facts import rfc3339_of
from streams.pack_rows import PackRow, contents

QUIET, MPPS, ORDER = "quiet", "mpps", "order"
"""`basis` of a completion: nothing came for the quiet time; all has come that devices list; nothing came, and its order
has been called completed.
"""

BUCKET_MS = 60_000
"""Width of a bucket of `pending_studies`: bounds the tombstones that a restarted worker reads over."""

PATIENT_DIFFERS = "study-patient-differs"
"""`proposal` of a patient who is not the one the study began with."""


# ------------------------------------------------------------------------------------------------ decisions


def is_late(before: PackRow, row: PackRow, quiet_ms: int) -> bool:
    """Whether `row` came after the study's quiet time was over."""
    return row.arrival_ms >= before.arrival_ms + quiet_ms


def completed(partition: int, rows: Sequence[PackRow], basis: str = QUIET) -> Emit:
    """Completion of a study, with its contents at exactly the last of `rows` (all up to there, by offset)."""
    first, last, held = rows[0], rows[-1], contents(rows)
    event = StudyCompleted(
        study_uid=last.study_uid,
        basis=basis,
        revision=last.offset + 1,
        as_of_partition=partition,
        as_of_offset=last.offset,
        packs=held.packs,
        series=held.series,
        instances=held.instances,
        bytes=held.bytes,
        first_arrival=rfc3339_of(first.arrival_ms),
        last_arrival=rfc3339_of(last.arrival_ms),
    )
    return Emit(event, derived_id("study.completed", last.study_uid, last.offset), last.study_uid)


def arrived(
    partition: int,
    rows: Sequence[PackRow],
    event: PackStored,
    patient: PatientKey,
    quiet_ms: int,
    known: Collection[int],
) -> list[Emit]:
    """What the arrival of the last of `rows` decides.

    `known` are offsets of this study at which it is known to have been completed: their events are not sent again.
    """
    row, earlier = rows[-1], rows[:-1]
    emits = []
    if earlier:
        before = earlier[-1]
        late = is_late(before, row, quiet_ms)
        if late and before.offset not in known:
            emits.append(completed(partition, earlier))
        if late or before.offset in known:
            emits.append(_reopened(before, row))
    if row.patient_key not in {r.patient_key for r in earlier}:
        emits.append(_seen(rows[0], row, event, patient))
    return emits


def _reopened(before: PackRow, row: PackRow) -> Emit:
    event = StudyReopened(study_uid=row.study_uid, revision=before.offset + 1, pack_id=row.pack_id, offset=row.offset)
    return Emit(event, derived_id("study.reopened", row.study_uid, row.offset), row.study_uid)


def _seen(first: PackRow, row: PackRow, event: PackStored, patient: PatientKey) -> Emit:
    differs = PATIENT_DIFFERS if first.patient_key != row.patient_key else ""
    seen = PatientSeen(
        patient_key=patient.value,
        basis=patient.basis,
        proposal=patient.proposal or differs,
        study_uid=row.study_uid,
        site=row.site,
        pack_id=row.pack_id,
        bucket=event.bucket,
        manifest_key=event.manifest_key,
    )
    return Emit(seen, derived_id("patient.seen", row.study_uid, patient.value), row.study_uid)


# ------------------------------------------------------------------------------------------------ timers as rows


def timers(partition: int, rows: Sequence[PackRow], since: int) -> list[Write]:
    """Timers of the arrivals from offset `since` on; each overtakes the one before."""
    writes: list[Write] = []
    before: PackRow | None = None
    for row in rows:
        if row.offset >= since:
            if before is not None:
                key = timer_key(partition, row.study_uid, before.offset, before.arrival_ms)
                writes.append(Delete("pending_studies", key, row.offset))
            key = timer_key(partition, row.study_uid, row.offset, row.arrival_ms)
            writes.append(Upsert("pending_studies", key, {"arrival": row.arrival_ms}, row.offset))
        before = row
    return writes


def timer_key(partition: int, study_uid: str, offset: int, arrival_ms: int) -> dict[str, int | str]:
    """Key of an arrival's timer in `pending_studies`."""
    return {
        "arrivals_partition": partition,
        "bucket": arrival_ms // BUCKET_MS,
        "study_uid": study_uid,
        "record_offset": offset,
    }
