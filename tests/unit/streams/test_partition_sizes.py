"""How large the partitions of the lists become in a country: 100 MB each is the budget (design, "Read models")."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from infra.cql_values import serialise
from infra.memory import MemoryObjects
from schemas.events import AccessDenied, AccessEmergency, AccessUsed
from schemas.names import COMMON_SHARDS, COMMON_WORDS, name_tokens
from schemas.sounds import COMMON_SOUND_SHARDS
from schemas.tables import BY_NAME, Upsert
from streams.arrivals import fold
from streams.dispatch import project
from tests.unit.streams.samples import KEYS, Pack, fact, pack_id, sha

STUDIES = 60_000_000
YEARS = 5
BUDGET = 100_000_000
CELL_BYTES, ROW_BYTES = 8, 16
"""What Cassandra adds to a cell and to a row, before compression."""

DAY = STUDIES / YEARS / 365 * 1.5
"""A day with half more than the mean."""
COMMON = 1 / 3
"""Share of the names that have the most common word (محمد)."""
HEARD = 1 / 2
"""The same in all its spellings, and of what sounds alike."""
OTHERS = 1 / 12
"""The same of the most common word that is not among COMMON_WORDS."""
WORDS = 1_000_000
"""Distinct words of all names, of eight characters."""
SAME_START = 1 / 50
"""Share of the words that have the most common first two or any three characters (ال, الم)."""
ACCESSES_PER_STUDY = 20
"""Events of access over a study's life: searches that showed it, and windows."""
PATIENT = 2_000
"""Studies of one PatientID: a very ill patient, or a number that every hospital has given."""

ROWS: dict[str, float] = {
    "studies_by_day": DAY,
    "studies_by_name_token": STUDIES / (YEARS * 12) * max(COMMON / COMMON_SHARDS, HEARD / COMMON_SOUND_SHARDS, OTHERS),
    "studies_by_patient": PATIENT,
    "studies_by_patient_id": PATIENT,
    "studies_by_accession": 200,
    "study_counts": 31 * 48,
    "name_tokens": WORDS * SAME_START * 5,
    "name_trigrams": WORDS * SAME_START,
    "name_token_months": YEARS * 12,
    "accesses_by_hour": DAY * ACCESSES_PER_STUDY / 10,
    "accesses_by_actor": 5_000,
    "accesses_by_study": 2_000,
    "accesses_by_patient": 20_000,
    "accesses_denied": DAY * ACCESSES_PER_STUDY / 50,
    "accesses_emergency": 20_000,
    "emergencies_by_actor": 2_000,
}
"""Rows of the largest partition."""


def test_no_partition_outgrows_its_budget() -> None:
    objects = MemoryObjects()
    pack = Pack(0)
    arrived = fact(pack.put(objects), 1)
    writes = [w for w in fold([arrived], (), {1: pack.manifest}, KEYS).writes if isinstance(w, Upsert)]
    writes += _accesses()
    largest = {table: max(_bytes(w) for w in writes if w.table == table) for table in ROWS if table != "study_counts"}
    largest["study_counts"] = 64
    sizes = {
        table: rows * (largest[table] + 200 * ("answer" in BY_NAME[table].columns)) for table, rows in ROWS.items()
    }
    told = [f"largest partitions at {STUDIES:,} studies:"]
    for table, size in sorted(sizes.items(), key=lambda s: -s[1]):
        told.append(f"  {table:24} {ROWS[table]:>12,.0f} rows {size / 1e6:>8.1f} MB")
    sys.stdout.write("\n".join(told) + "\n")
    assert max(sizes.values()) < BUDGET, told


def test_common_words_are_written_as_they_are_folded() -> None:
    assert all(name_tokens(word) == (word,) for word in COMMON_WORDS)


def _accesses() -> list[Upsert]:
    """One row of each list of accesses, with all that comes to stand in it."""
    said: dict[str, Any] = {
        "access_id": pack_id(1),
        "actor": "ae:WORKSTATION_12345@2001:db8:1234:5678:9abc:def0:1234:5678",
        "role": "administrator",
        "purpose": "HSYSADMIN",
        "action": "retrieve-thumbnail",
        "occurred": "2025-03-01T08:00:00.123456Z",
        "via": "dimse",
        "address": "2001:db8:1234:5678:9abc:def0:1234:5678",
    }
    uid, key = "1.2.840.113619.2.55.3.2831164355.781.1426152305.467".ljust(64, "0"), "k1:" + "x" * 43
    opened = AccessEmergency(
        **said,
        reason="no-relation",
        study_uid=uid,
        patient_key=key,
        until=said["occurred"],
        bucket="sijil-documents",
        document_key=f"emergencies/{pack_id(1)}.json",
        document_size=100,
        document_sha256=sha(""),
    )
    refused = AccessDenied(**said, reason="no-relation", study_uid=uid, patient_key=key)
    used = AccessUsed(**said, study_uid=uid, patient_key=key, uses=9, bytes=9, last_used=said["occurred"])
    counts = {w.table: w.columns for w in project(fact(used, 1)) if isinstance(w, Upsert)}
    found = [w for e in (opened, refused) for w in project(fact(e, 1)) if isinstance(w, Upsert)]
    return [replace(w, columns={**w.columns, **counts.get(w.table, {})}) for w in found]


def _bytes(write: Upsert) -> int:
    """Of a row without its partition key. Real answers have longer names and UIDs: 200 bytes more are reckoned."""
    table = BY_NAME[write.table]
    values = {**write.key, **write.columns}
    cells = [serialise(table.columns[n], v) for n, v in values.items() if n not in table.partition_key]
    return ROW_BYTES + sum(CELL_BYTES + len(c) for c in cells)
