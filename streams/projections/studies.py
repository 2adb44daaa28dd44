"""study.pack-stored → studies, series, instances, packs and the indexes that find a study.

`project` gives what one record says by itself. `summarise` gives what all packs of a study say together, from their
rows in `packs_by_study`: study-level and series-level attributes are those of the lowest offset, counts are of all,
and the timestamp is the last offset, so that any splitting into batches and any redelivery ends in the same rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.answers import study_answer
from schemas.blocks import Blocks
from schemas.errors import Invalid
from schemas.events import PackStored
from schemas.identity import PatientKey, check_uid, uid_stem
from schemas.names import PREFIX_LENGTH, name_tokens, trigrams
from schemas.pack import InstanceLine, Manifest, PackLine
from schemas.patient_keys import Keys
from schemas.sounds import shards_of, sound_tokens
from schemas.tables import EVER, Upsert, Write
from schemas.to_read import NOT_READ
from streams.completeness import timers
from streams.facts import Fact, day_of
from streams.header import date_of, instance_level, series_level, study_level
from streams.pack_rows import (
    HASH_BYTES,
    SUMMARY_VERSION,
    PackRow,
    SeriesPart,
    StudyPart,
    Summary,
    contents,
    distinct,
    sop_hash,
)

FRAMES_TEXT_MAX = 16_384
LENGTH_MAX = 1 << 42
"""Bytes of an instance: four terabytes, far above any and far below what a study's sum could overflow with."""
IDENTIFIER_MAX = 256
"""Characters of an identifier that is a partition key."""


@dataclass(frozen=True)
class Projected:
    """What one pack-stored says."""

    row: PackRow
    patient: PatientKey
    writes: list[Write]


def project(fact: Fact, manifest: Manifest, keys: Keys) -> Projected:
    """Member rows of a pack and its row in `packs_by_study`. Raises Invalid(`manifest-…`, `uid-…`)."""
    event, pack = fact.event, manifest.pack
    if not isinstance(event, PackStored) or not manifest.instances:
        raise Invalid("manifest-empty")
    if (pack.pack_id, pack.study_uid, pack.sha256) != (event.pack_id, event.study_uid, event.pack_sha256):
        raise Invalid("manifest-other-pack")
    study = study_part(manifest)
    patient = keys.of(
        patient_id=study.patient_id,
        issuer=study.issuer,
        birth_date=study.birth_date,
        sex=study.sex,
        study_uid=event.study_uid,
    )
    marks = set(pack.marks).union(*(i.marks for i in manifest.instances))
    summary = Summary(
        version=SUMMARY_VERSION,
        pack_sha256=bytes.fromhex(event.pack_sha256)[:HASH_BYTES],
        size=sum(i.length for i in manifest.instances),
        study=study,
        series=tuple(_series_parts(manifest)),
        sop_classes=tuple(sorted({i.sop_class for i in manifest.instances})),
        marks=tuple(sorted(marks)),
    )
    row = PackRow(event.study_uid, fact.offset, event.pack_id, fact.log_ms, event.site, patient.value, summary)
    writes: list[Write] = [_instance(fact.offset, event.pack_id, n, line) for n, line in enumerate(manifest.instances)]
    writes += [_by_uid(fact.offset, line) for line in manifest.instances]
    writes += [row.write(), _pack(fact, event, pack), _by_site_day(fact, event)]
    writes.append(Upsert("sites_sending", {"within": EVER, "site": event.site}, {}, fact.offset))
    return Projected(row, patient, writes)


def study_part(manifest: Manifest) -> StudyPart:
    """Patient and study as the pack's first instance has them."""
    pack = manifest.pack
    level = study_level(manifest.instances[0].header)
    site_issuer = pack.issuer or pack.site
    return StudyPart(
        patient_id=level.text("00100020")[:IDENTIFIER_MAX],
        issuer=level.text("00100021")[:IDENTIFIER_MAX] or site_issuer,
        patient_name=level.person_name("00100010"),
        birth_date=date_of(level.text("00100030")),
        sex=level.text("00100040").upper(),
        study_date=date_of(level.text("00080020")),
        study_time=level.text("00080030").replace(":", "")[:16],
        accession=level.text("00080050")[:IDENTIFIER_MAX],
        # PS3.3 Table 10-17: the local name, else the universal one.
        accession_issuer=level.item_text("00080051", "00400031")[:IDENTIFIER_MAX]
        or level.item_text("00080051", "00400032")[:IDENTIFIER_MAX]
        or site_issuer,
        description=level.text("00081030"),
        referring=level.person_name("00080090"),
        study_id=level.text("00200010"),
        attributes=level.json(),
    )


def _series_parts(manifest: Manifest) -> Iterator[SeriesPart]:
    members: dict[str, list[InstanceLine]] = {}
    for line in manifest.instances:
        members.setdefault(line.series_uid, []).append(line)
    for uid, lines in members.items():
        level = series_level(lines[0].header)
        yield SeriesPart(
            series_uid=uid,
            modality=level.text("00080060"),
            number=level.integer("00200011"),
            description=level.text("0008103E"),
            body_part=level.text("00180015"),
            attributes=level.json(),
            sops=b"".join({sop_hash(line.sop_uid): None for line in lines}),
        )


def _instance(offset: int, pack_id: str, n: int, line: InstanceLine) -> Upsert:
    check_uid(line.series_uid)
    check_uid(line.sop_uid)
    if not (line.offset >= 0 and 0 <= line.length < LENGTH_MAX):
        raise Invalid("manifest-range")
    level = instance_level(line.header)
    frames = _text(line.frames)
    columns: dict[str, Any] = {
        "pack_id": pack_id,
        "sop_class": line.sop_class,
        "transfer_syntax": line.transfer_syntax,
        "tar_offset": line.offset,
        "length": line.length,
        "dataset_offset": line.dataset_offset,
        "sha256": line.sha256,
        "frames": frames if len(frames) <= FRAMES_TEXT_MAX else "",
        "marks": sorted(line.marks),
        "attributes": level.json(),
    }
    if (number := level.integer("00200013")) is not None:
        columns["instance_number"] = number
    key = {
        "study_uid": line.study_uid,
        "series_uid": line.series_uid,
        "sop_uid": line.sop_uid,
        "record_offset": offset,
        "line": n,
    }
    return Upsert("instances", key, columns, offset)


def _by_uid(offset: int, line: InstanceLine) -> Upsert:
    uids = {"study_uid": line.study_uid, "series_uid": line.series_uid, "sop_uid": line.sop_uid}
    return Upsert("instances_by_uid", {"stem": uid_stem(line.sop_uid), **uids, "sop_class": line.sop_class}, {}, offset)


def _text(raw: msgspec.Raw) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as e:
        raise Invalid("manifest-frames") from e


def _by_site_day(fact: Fact, event: PackStored) -> Upsert:
    key = {"site": event.site, "day": fact.day, "study_uid": event.study_uid}
    return Upsert("studies_by_site_day", key, {"last_arrival": fact.log_ms}, fact.offset)


def _pack(fact: Fact, event: PackStored, pack: PackLine) -> Upsert:
    columns = {
        "study_uid": event.study_uid,
        "site": event.site,
        "gateway": event.gateway,
        "door": event.door,
        "bucket": event.bucket,
        "pack_key": event.pack_key,
        "size": event.pack_size,
        "sha256": event.pack_sha256,
        "blocks": Blocks(pack.blocks).text() if pack.blocks else "",
        "manifest_key": event.manifest_key,
        "manifest_size": event.manifest_size,
        "manifest_sha256": event.manifest_sha256,
        "instances": event.instances,
        "record_offset": fact.offset,
        "arrival": fact.log_ms,
    }
    return Upsert("packs", {"pack_id": event.pack_id}, columns, fact.offset)


# ------------------------------------------------------------------------------------------------ all packs together


def summarise(partition: int, rows: Sequence[PackRow], since: int) -> list[Write]:
    """Rows of a study from all its packs up to a point of the log, `rows`, by offset.

    `since` is the lowest offset that is new: what no new pack has touched is not written again.
    """
    first, last = rows[0], rows[-1]
    key = {"study_uid": last.study_uid}
    columns = {**_study_columns(rows), "study_date": first.summary.study.study_date}
    columns["answer"] = study_answer(columns | key)
    writes: list[Write] = [Upsert("studies", key, {**columns, "arrivals_partition": partition}, last.offset)]
    writes += _series(rows, since)
    writes += _indexes(first, columns["answer"], last.offset)
    if first.offset >= since:
        # Said once, by a study's first pack.
        writes += vocabulary(first.summary.study.patient_name, day_of_study(first)[:6], first.offset)
    return writes + timers(partition, rows, since)


def _study_columns(rows: Sequence[PackRow]) -> dict[str, Any]:
    first, last = rows[0], rows[-1]
    study, held = first.summary.study, contents(rows)
    return {
        "patient_key": first.patient_key,
        "patient_id": study.patient_id,
        "issuer": study.issuer,
        "patient_name": study.patient_name,
        "birth_date": study.birth_date,
        "sex": study.sex,
        "study_time": study.study_time,
        "accession": study.accession,
        "description": study.description,
        "referring": study.referring,
        "study_id": study.study_id,
        "modalities": sorted({s.modality for r in rows for s in r.summary.series if s.modality}),
        "sop_classes": sorted({c for r in rows for c in r.summary.sop_classes}),
        "series_count": held.series,
        "instance_count": held.instances,
        "bytes": held.bytes,
        "pack_count": held.packs,
        "sites": sorted({r.site for r in rows}),
        "marks": sorted({m for r in rows for m in r.summary.marks}),
        "first_site": first.site,
        "first_arrival": first.arrival_ms,
        "last_arrival": last.arrival_ms,
        **last_images(rows),
        "first_offset": first.offset,
        "last_offset": last.offset,
        "attributes": study.attributes,
    }


def last_images(rows: Sequence[PackRow]) -> dict[str, int]:
    """When images came last that the study did not have: a report of before does not speak of them. Of a study without
    any nothing is said.
    """
    seen: set[bytes] = set()
    came: dict[str, int] = {}
    for row in rows:
        for part in row.summary.series:
            found = part.hashes()
            if part.modality not in NOT_READ and not found <= seen:
                came["last_images"] = row.arrival_ms
                seen |= found
    return came


def _series(rows: Sequence[PackRow], since: int) -> Iterator[Upsert]:
    """Each series that a new pack has touched, as of the last pack that has it."""
    parts: dict[str, list[tuple[int, SeriesPart]]] = {}
    for row in rows:
        for part in row.summary.series:
            parts.setdefault(part.series_uid, []).append((row.offset, part))
    for uid, found in parts.items():
        last_offset, (_, first) = found[-1][0], found[0]
        if last_offset < since:
            continue
        columns: dict[str, Any] = {
            "modality": first.modality,
            "description": first.description,
            "body_part": first.body_part,
            "instance_count": len(distinct(part for _, part in found)),
            "last_offset": last_offset,
            "attributes": first.attributes,
        }
        if first.number is not None:
            columns["series_number"] = first.number
        yield Upsert("series", {"study_uid": rows[0].study_uid, "series_uid": uid}, columns, last_offset)


def _indexes(first: PackRow, answer: str, timestamp: int) -> Iterator[Upsert]:
    columns = {"patient_key": first.patient_key, "answer": answer}
    study = first.summary.study
    for table, key in index_keys(study, first.study_uid, first.patient_key, day_of_study(first)):
        yield Upsert(table, key, {n: v for n, v in columns.items() if n not in key}, timestamp)


def index_keys(study: StudyPart, uid: str, patient: str, day: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(list, key) of each list that has a study, where `day` is the one that lists have it under."""
    moment = day + study.study_time
    at = {"moment": moment, "study_uid": uid}
    yield "studies_by_patient", {"patient_key": patient, **at}
    if study.patient_id:
        yield "studies_by_patient_id", {"patient_id": study.patient_id, **at}
    if study.accession:
        key = {"accession": study.accession, "accession_issuer": study.accession_issuer, "study_uid": uid}
        yield "studies_by_accession", key
    yield "studies_by_day", {"day": day, **at}
    for token in (*name_tokens(study.patient_name), *sound_tokens(study.patient_name)):
        shard = shard_of(uid, shards_of(token))
        yield "studies_by_name_token", {"token": token, "month": day[:6], "shard": shard, **at}


def vocabulary(patient_name: str, month: str, offset: int) -> Iterator[Upsert]:
    """Tokens and their months: keys alone. What a name sounds like is found as a whole or by its beginning."""
    words = name_tokens(patient_name)
    for token in (*words, *sound_tokens(patient_name)):
        yield Upsert("name_tokens", {"prefix": token[:PREFIX_LENGTH], "token": token}, {}, offset)
        yield Upsert("name_token_months", {"token": token, "month": month}, {}, offset)
    for token in words:
        for trigram, rest in trigrams(token):
            yield Upsert("name_trigrams", {"trigram": trigram, "rest": rest, "token": token}, {}, offset)


def day_of_study(first: PackRow) -> str:
    """The day under which lists have a study: its StudyDate, else the day of its first arrival."""
    return first.summary.study.study_date or day_of(first.arrival_ms)


def shard_of(study_uid: str, shards: int) -> int:
    """Which shard of a list a study is in."""
    return zlib.crc32(study_uid.encode()) % shards
