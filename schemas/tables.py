"""The read models: one table per question, and the values that change them.

`infra/cql/0002_views.cql` is generated from TABLES. Every write carries the Kafka offset of its record as Cassandra's
write timestamp (design, rule 5), so each non-key column is fed by one key of one topic. Times are those of the log
(LogAppendTime, as CQL timestamps) or of the events (text); no column holds the projector's own clock.

Text that a dataset does not have is "", and a figure that it does not have is not set. Days are `YYYYMMDD`, months
`YYYYMM`, years `YYYY`, as in DICOM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VIEWS_KEYSPACE = "sijil_views"
STATE_KEYSPACE = "sijil_state"
INVITATION_TTL_S = 100 * 86_400
"""Longer than any link holds."""

HOLDER_TTL_S = 30
"""Whoever makes patient keys and has not said so for so long makes none any more."""

_RESERVED = frozenset(
    """add allow alter and apply asc authorize batch begin by columnfamily create default delete desc describe drop
    entries execute from full grant if in index infinity insert into is keyspace limit materialized mbean mbeans modify
    nan norecursive not null of on or order primary rename replace revoke schema select set table to token truncate
    unlogged unset update use using view where with""".split()
)


def identifier(name: str) -> str:
    """A column's name as CQL wants it: quoted if it is one of its reserved words."""
    return f'"{name}"' if name in _RESERVED else name


@dataclass(frozen=True)
class Table:
    """A read model. `columns` maps name → CQL type, keys included, in their order."""

    name: str
    columns: Mapping[str, str]
    partition_key: tuple[str, ...]
    clustering: tuple[str, ...] = ()
    descending: frozenset[str] = frozenset()
    source: str = ""
    """Topic that feeds it; several where each feeds columns of its own."""
    about: str = ""
    ttl_s: int = 0
    """Rows are gone after so long; 0: never."""

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Partition and clustering columns."""
        return self.partition_key + self.clustering

    def create(self, keyspace: str) -> str:
        """CREATE TABLE IF NOT EXISTS … for a keyspace of any name."""
        body = ",\n".join(f"    {identifier(n)} {t}" for n, t in self.columns.items())
        key = f"({', '.join(map(identifier, self.partition_key))})"
        key += "".join(f", {identifier(c)}" for c in self.clustering)
        options = [f"comment = '{self.about.replace(chr(39), chr(39) * 2)}'"]
        if self.clustering:
            order = ", ".join(f"{identifier(c)} {'DESC' if c in self.descending else 'ASC'}" for c in self.clustering)
            options.insert(0, f"CLUSTERING ORDER BY ({order})")
        if self.ttl_s:
            options.append(f"default_time_to_live = {self.ttl_s}")
        return (
            f"CREATE TABLE IF NOT EXISTS {keyspace}.{self.name} (\n{body},\n    PRIMARY KEY ({key})\n)"
            f" WITH {' AND '.join(options)};"
        )


@dataclass(frozen=True)
class Upsert:
    """Set `columns` of the row `key`. `timestamp` is the offset of the record that says so."""

    table: str
    key: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)
    timestamp: int = 0


@dataclass(frozen=True)
class Delete:
    """Remove the row `key`, as of `timestamp`."""

    table: str
    key: Mapping[str, Any]
    timestamp: int = 0


Write = Upsert | Delete

ORDER_COLUMNS: dict[str, str] = {
    "version": "int",
    "status": "text",
    "site": "text",
    "day": "text",  # of the scheduled start, else of the order, where the site is
    "scheduled": "text",  # YYYYMMDDHHMMSS where the site is; empty: any time of the day
    "priority": "text",
    "accession": "text",
    "placer": "text",
    "study_uid": "text",
    "patient_key": "text",
    "patient_name": "text",
    "patient_id": "text",
    "issuer": "text",
    "birth_date": "text",
    "sex": "text",
    "phone": "text",
    "modality": "text",
    "station_ae": "text",
    "body_part": "text",
    "procedure_code": "text",
    "procedure_scheme": "text",
    "procedure_text": "text",
    "reason": "text",
    "requester": "text",
    "referrer_name": "text",
    "authored": "text",
    "recorded": "text",
    "stated_by": "text",
    "bucket": "text",
    "document_key": "text",
    "document_size": "bigint",
    "document_sha256": "text",
}
"""What every list of orders holds."""


def _orders(name: str, partition: tuple[str, ...], about: str) -> Table:
    columns = {**{n: ORDER_COLUMNS[n] for n in partition}, "order_id": "text", **ORDER_COLUMNS}
    return Table(name, columns, partition, ("order_id",), source="orders", about=about)


LIKE_COLUMNS: dict[str, str] = {
    "patient_name": "text",
    "birth": "text",  # YYYYMMDD
    "sex": "text",
    "stamp": "bigint",  # grows with every change of the row
}
"""What somebody is compared by with others."""

EVER = "ever"
"""What `study_counts` counts years of."""

STUDY_COLUMNS: dict[str, str] = {
    "patient_key": "text",
    "patient_id": "text",
    "issuer": "text",
    "patient_name": "text",
    "birth_date": "text",
    "sex": "text",
    "study_time": "text",
    "accession": "text",
    "description": "text",
    "referring": "text",
    "study_id": "text",
    "modalities": "frozen<set<text>>",
    "sop_classes": "frozen<set<text>>",
    "series_count": "int",
    "instance_count": "int",
    "bytes": "bigint",
    "pack_count": "int",
    "sites": "frozen<set<text>>",
    "marks": "frozen<set<text>>",
    "first_site": "text",  # who sent the first pack
    "first_arrival": "timestamp",
    "last_arrival": "timestamp",
    "last_images": "timestamp",  # when images came last that it did not have
    "first_offset": "bigint",
    "last_offset": "bigint",
    "attributes": "text",  # the study-level header of the first pack, DICOM JSON
    "answer": "text",  # what a search shows, DICOM JSON (schemas.answers)
}

# What every list of studies holds: the answer itself, so that one partition read answers a page, and whose it is. What
# a search filters by is read from the answer.
LIST_COLUMNS: dict[str, str] = {"patient_key": "text", "answer": "text"}

# Of a study that people have corrected: its row in a list says no more than that, `studies` says what it is now. Rows
# under what was corrected have nothing else.
CORRECTED: dict[str, str] = {"corrected": "boolean"}


def _index(name: str, keys: dict[str, str], partition: int, about: str, desc: tuple[str, ...] = ()) -> Table:
    names = tuple(keys)
    return Table(
        name,
        {**keys, **{c: t for c, t in LIST_COLUMNS.items() if c not in keys}, **CORRECTED},
        names[:partition],
        names[partition:],
        frozenset(desc),
        source="study.arrivals; corrected from study.corrections",
        about=about,
    )


# What every list of accesses says of one. Its month, day and hour are those of the access id, a UUIDv7.
ACCESS_COLUMNS: dict[str, str] = {
    "outcome": "text",  # granted, denied, emergency
    "actor": "text",
    "role": "text",
    "purpose": "text",
    "action": "text",
    "via": "text",
    "address": "text",
    "destination": "text",  # of a C-MOVE
    "occurred": "text",
    "reason": "text",
    "until": "text",
    "shown_count": "int",
    "uses": "int",
    "bytes": "bigint",
    "cut_short": "int",
    "recovered": "boolean",
    "last_used": "text",
}

# What the event of a version says besides where its document is.
REPORT_SAYS: dict[str, str] = {
    "author": "text",
    "signed_by": "text",
    "signed": "text",
    "critical": "boolean",
    "source_sop_uid": "text",
}

CRITICAL_COLUMNS: dict[str, str] = {
    "critical_id": "text",
    "study_uids": "frozen<list<text>>",
    "site": "text",
    "raised_by": "text",
    "raised": "text",
    "contacts": "frozen<list<text>>",  # person ids, in their order
    "within_s": "int",
    "level": "int",  # whose turn it is: place in contacts
    "contact": "text",
    "due": "text",
}


def _accesses(
    name: str, first: Mapping[str, str], partition: int, about: str, clustering: tuple[str, ...] = ()
) -> Table:
    """A list of accesses, newest first: its key in front, or with `clustering` further columns behind the key."""
    columns = {**first, **{n: t for n, t in ACCESS_COLUMNS.items() if n not in first}}
    return Table(
        name,
        columns,
        tuple(first)[:partition],
        clustering or tuple(first)[partition:],
        frozenset({"access_id"}),
        source="accesses",
        about=f"{about}; newest first, since access_id is a UUIDv7.",
    )


_CELLS = "frozen<list<text>>"

TABLES: tuple[Table, ...] = (
    Table(
        "studies",
        {
            "study_uid": "text",
            "study_date": "text",
            **STUDY_COLUMNS,
            "arrivals_partition": "int",
            "completed_revision": "bigint",
            "completed_basis": "text",
            "completed_time": "text",
            "completed_instances": "int",
            "reopened_revision": "bigint",
            "overlay": "text",  # what corrections come to, JSON (schemas.overlay)
        },
        ("study_uid",),
        source="study.arrivals; completed_* and reopened_* from study.lifecycle; overlay from study.corrections",
        about="A study by its UID.",
    ),
    Table(
        "series",
        {
            "study_uid": "text",
            "series_uid": "text",
            "modality": "text",
            "series_number": "int",
            "description": "text",
            "body_part": "text",
            "instance_count": "int",
            "last_offset": "bigint",
            "attributes": "text",
        },
        ("study_uid",),
        ("series_uid",),
        source="study.arrivals",
        about="The series of a study.",
    ),
    Table(
        "instances",
        {
            "study_uid": "text",
            "series_uid": "text",
            "sop_uid": "text",
            "record_offset": "bigint",
            "line": "int",
            "pack_id": "text",
            "sop_class": "text",
            "transfer_syntax": "text",
            "instance_number": "int",
            "tar_offset": "bigint",
            "length": "bigint",
            "dataset_offset": "int",
            "sha256": "text",
            "frames": "text",  # as in the manifest; "" where it is too large for a row: read it there
            "marks": "frozen<set<text>>",
            "attributes": "text",
        },
        ("study_uid",),
        ("series_uid", "sop_uid", "record_offset", "line"),
        source="study.arrivals",
        about="Where the bytes of each copy of an instance lie; the lowest record_offset (then line) is served.",
    ),
    Table(
        "instances_by_uid",
        # `stem`: the UID without its last three characters. The instances of a series mostly differ in these alone, so
        # a pack writes a few partitions and not one for each; three of 11 characters are 1,331 endings at most.
        {"stem": "text", "sop_uid": "text", "study_uid": "text", "series_uid": "text", "sop_class": "text"},
        ("stem",),
        ("sop_uid", "study_uid", "series_uid", "sop_class"),
        source="study.arrivals",
        about="Where an instance is of which only the UID is known, as in a storage commitment, and its SOP class.",
    ),
    # `moment`: study date and time as they sort, YYYYMMDDHHMMSS.F; the arrival day where StudyDate is missing.
    _index(
        "studies_by_patient",
        {"patient_key": "text", "moment": "text", "study_uid": "text"},
        1,
        "A patient file.",
        ("moment",),
    ),
    _index(
        "studies_by_patient_id",
        {"patient_id": "text", "moment": "text", "study_uid": "text"},
        1,
        "Studies under a PatientID, of whatever issuer.",
        ("moment",),
    ),
    _index(
        "studies_by_accession",
        {"accession": "text", "accession_issuer": "text", "study_uid": "text"},
        1,
        "Studies of an accession number, of whatever issuer; an empty one is not indexed.",
    ),
    _index(
        "studies_by_day",
        {"day": "text", "moment": "text", "study_uid": "text"},
        1,
        "Studies of a day.",
        ("moment",),
    ),
    Table(
        "studies_by_site_day",
        {"site": "text", "day": "text", "study_uid": "text", "last_arrival": "timestamp"},
        ("site", "day"),
        ("study_uid",),
        source="study.arrivals",
        about="Studies of which a site sent something on a day of the log (UTC), and when it last did.",
    ),
    Table(
        "sites_sending",
        {"within": "text", "site": "text"},
        ("within",),
        ("site",),
        source="study.arrivals",
        about="Every site that has ever sent something, in one partition.",
    ),
    Table(
        "study_counts",
        {"within": "text", "part": "text", "arrivals_partition": "int", "studies": "int", "last_offset": "bigint"},
        ("within",),
        ("part", "arrivals_partition"),
        frozenset({"part"}),
        source="study.arrivals; rows of a negative arrivals_partition from study.corrections",
        about="How many studies the years have (within: ever), a year's months (YYYY), a month's days (YYYYMM), by"
        " partition of the topic: a walk reads no empty day, a page far down leaves out whole years. A negative"
        " partition: of one study, which people moved or rejected.",
    ),
    _index(
        "studies_by_name_token",
        {"token": "text", "month": "text", "shard": "int", "moment": "text", "study_uid": "text"},
        3,
        "Studies whose patient name has a folded token, or (~) sounds like a key, by month, those of the commonest in"
        " shards.",
        ("moment",),
    ),
    Table(
        "name_tokens",
        {"prefix": "text", "token": "text"},
        ("prefix",),
        ("token",),
        source="study.arrivals",
        about="The vocabulary of folded name tokens by their first two characters.",
    ),
    Table(
        "name_trigrams",
        {"trigram": "text", "rest": "text", "token": "text"},
        ("trigram",),
        ("rest", "token"),
        source="study.arrivals",
        about="The same vocabulary by each three characters of a token; rest: the token from there on, so that a longer"
        " infix reads a shorter range.",
    ),
    Table(
        "name_token_months",
        {"token": "text", "month": "text"},
        ("token",),
        ("month",),
        frozenset({"month"}),
        source="study.arrivals",
        about="Months in which a token has studies.",
    ),
    Table(
        "packs",
        {
            "pack_id": "text",
            "study_uid": "text",
            "site": "text",
            "gateway": "text",
            "door": "text",
            "bucket": "text",
            "pack_key": "text",
            "size": "bigint",
            "sha256": "text",
            "blocks": "text",
            "manifest_key": "text",
            "manifest_size": "bigint",
            "manifest_sha256": "text",
            "instances": "int",
            "record_offset": "bigint",
            "arrival": "timestamp",
            "archive_bucket": "text",
            "archive_key": "text",
            "archive_version_id": "text",
            "archive_manifest_key": "text",
            "archive_manifest_version_id": "text",
            "retain_until": "text",
            "retention_policy": "text",
        },
        ("pack_id",),
        source="study.arrivals; archive_* and retain_* from archive",
        about="Where a pack lies in each tier.",
    ),
    Table(
        "packs_by_study",
        {
            "study_uid": "text",
            "record_offset": "bigint",
            "pack_id": "text",
            "arrival": "timestamp",
            "site": "text",
            "patient_key": "text",
            "summary": "blob",
        },
        ("study_uid",),
        ("record_offset",),
        source="study.arrivals",
        about="One row per pack of a study: what summarise() needs instead of all members.",
    ),
    Table(
        "patients",
        {
            "patient_key": "text",
            "basis": "text",
            "patient_name": "text",
            "patient_id": "text",
            "issuer": "text",
            "birth_date": "text",
            "sex": "text",
            "last_study_uid": "text",
            "stated_name": "text",
            "stated_id": "text",
            "stated_issuer": "text",
            "stated_birth_date": "text",
            "stated_sex": "text",
            "stated_phone": "text",
            "stated_locals": "frozen<list<text>>",
            "stated_locals_issuer": "text",
            "stated_by": "text",
            "stated": "text",
        },
        ("patient_key",),
        source="patients",
        about="Who a patient key is: as last seen in images, and as hospitals last stated.",
    ),
    Table(
        "identity_proposals",
        {"month": "text", "study_uid": "text", "patient_key": "text", "proposal": "text", "site": "text"},
        ("month",),
        ("study_uid", "patient_key"),
        source="patients",
        about="Studies whose patient a person should look at.",
    ),
    Table(
        "patient_links",
        {
            "patient_key": "text",
            "relation": "text",  # replaces, replaced-by, apart
            "other_key": "text",
            "link_id": "text",
            "holds": "boolean",
            "reason": "text",
            "stated_by": "text",
            "recorded": "text",
        },
        ("patient_key",),
        ("relation", "other_key"),
        source="patients",
        about="Which files people joined to a patient, to which it was joined, and which are of somebody else.",
    ),
    Table(
        "patient_links_by_month",
        {
            "month": "text",
            "moment": "text",
            "link_id": "text",
            "type": "text",  # linked, unlinked, kept-apart
            "patient_key": "text",
            "other_key": "text",
            "reason": "text",
            "stated_by": "text",
            "recorded": "text",
        },
        ("month",),
        ("moment", "link_id", "type"),
        frozenset({"moment"}),
        source="patients",
        about="What was decided of files by the month of the log, newest first.",
    ),
    Table(
        "patient_aliases",
        {"alias": "text", "patient_key": "text"},
        ("alias",),
        source="patients",
        about="Which file a number has that makes this key under a newer secret; its write time is always the same.",
    ),
    Table(
        "patients_by_birth_date",
        {"birth_date": "text", "patient_key": "text", **LIKE_COLUMNS},
        ("birth_date",),
        ("patient_key",),
        source="patients",
        about="Whom a patient may be the same as: those born on a day, as their images say.",
    ),
    Table(
        "patients_by_phone",
        {"phone": "text", "patient_key": "text", **LIKE_COLUMNS},
        ("phone",),
        ("patient_key",),
        source="orders",
        about="The same: those with a telephone number, as their orders say.",
    ),
    Table(
        "link_proposals",
        {
            "shard": "int",
            "patient_key": "text",
            "other_key": "text",
            "origin": "text",  # birth-date, phone
            "shared": "text",  # which one
            "score": "int",
            "why": "frozen<list<text>>",
            "stamp": "bigint",  # its timestamp: the sum of both files' stamps, the same whichever came last
        },
        ("shard",),
        ("patient_key", "other_key", "origin", "shared"),
        source="patients, orders",
        about="Files that look like one person's, 0 to 100, for a person to decide. Shards below 16: patient_key is the"
        " lesser one; from 16: the same rows by the greater one.",
    ),
    Table(
        "rejections",
        {
            "day": "text",
            "rejection_id": "text",
            "reason": "text",
            "site": "text",
            "gateway": "text",
            "door": "text",
            "received": "text",
            "size": "bigint",
            "sha256": "text",
            "study_uid": "text",
            "sop_uid": "text",
            "sop_class": "text",
            "calling_ae": "text",
        },
        ("day",),
        ("rejection_id",),
        frozenset({"rejection_id"}),
        source="study.arrivals",
        about="Instances refused at the doors, by day.",
    ),
    Table(
        "conflicts",
        {
            "month": "text",
            "found": "text",
            "study_uid": "text",
            "sop_uid": "text",
            "second_offset": "bigint",
            "series_uid": "text",
            "first_pack_id": "text",
            "first_offset": "bigint",
            "first_sha256": "text",
            "second_pack_id": "text",
            "second_sha256": "text",
            "reason": "text",
        },
        ("month",),
        ("found", "study_uid", "sop_uid", "second_offset"),
        frozenset({"found"}),
        source="study.lifecycle",
        about="Copies with different content under one SOP Instance UID.",
    ),
    Table(
        "duplicates",
        {
            "study_uid": "text",
            "record_offset": "bigint",
            "comparison": "text",
            "event_id": "text",
            "pack_id": "text",
            "instances": "int",
            "sop_uids": "frozen<list<text>>",
        },
        ("study_uid",),
        ("record_offset", "comparison", "event_id"),
        source="study.lifecycle",
        about="Instances that came again with the same content.",
    ),
    Table(
        "corrections",
        {
            "study_uid": "text",
            "record_offset": "bigint",
            "correction_id": "text",
            "number": "int",  # as its document has it; not set for a rejection note
            "type": "text",
            "actor": "text",
            "reason": "text",
            "recorded": "text",
            "content": "text",  # JSON (schemas.corrections.Correction)
            "bucket": "text",
            "document_key": "text",
            "document_sha256": "text",
            "note_sop_uid": "text",
        },
        ("study_uid",),
        ("record_offset",),
        source="study.corrections",
        about="What people decided of a study, in the order of the log.",
    ),
    Table(
        "corrections_by_month",
        {
            "month": "text",
            "moment": "text",
            "study_uid": "text",
            "record_offset": "bigint",
            "correction_id": "text",
            "type": "text",
            "actor": "text",
            "reason": "text",
            "recorded": "text",
            "code": "text",
            "scope": "text",
            "instances": "int",
            "note_sop_uid": "text",
        },
        ("month",),
        ("moment", "study_uid", "record_offset"),
        frozenset({"moment"}),
        source="study.corrections",
        about="Corrections of all studies by the month of their records, newest first.",
    ),
    Table(
        "reports",
        {
            "report_id": "text",
            "version": "int",
            "status": "text",
            "study_uids": "frozen<list<text>>",
            "site": "text",
            "issued": "text",
            "moment": "text",  # when the version reached the log
            "bucket": "text",
            "document_key": "text",
            "document_size": "bigint",
            "document_sha256": "text",
            **REPORT_SAYS,
        },
        ("report_id",),
        ("version",),
        frozenset({"version"}),
        source="reports",
        about="All versions of a report.",
    ),
    Table(
        "reports_by_study",
        {
            "study_uid": "text",
            "report_id": "text",
            "version": "int",
            "status": "text",
            "site": "text",
            "issued": "text",
            "bucket": "text",
            "document_key": "text",
            "document_size": "bigint",
            "document_sha256": "text",
            **REPORT_SAYS,
        },
        ("study_uid",),
        ("report_id", "version"),
        frozenset({"version"}),
        source="reports",
        about="The reports of a study, all versions.",
    ),
    Table(
        "criticals",
        {
            "report_id": "text",
            "version": "int",
            **CRITICAL_COLUMNS,
            "clinician": "text",
            "recorded_by": "text",
            "channel": "text",
            "acknowledged": "text",
            "bucket": "text",
            "document_key": "text",
            "document_sha256": "text",
        },
        ("report_id",),
        ("version",),
        frozenset({"version"}),
        source="reports",
        about="The critical results of a report; document_key: what was read back.",
    ),
    Table(
        "criticals_open",
        {"reports_partition": "int", "report_id": "text", "version": "int", **CRITICAL_COLUMNS},
        ("reports_partition",),
        ("report_id", "version"),
        source="reports",
        about="Critical results that nobody has read back, by the partition of the topic: timers of the worker. A row"
        " without contacts is one that was read back while it was passed on.",
    ),
    Table(
        "reports_by_person",
        {
            "person_id": "text",
            "month": "text",
            "issued": "text",
            "report_id": "text",
            "version": "int",
            "relation": "text",
            "status": "text",
            "study_uids": "frozen<list<text>>",
        },
        ("person_id", "month"),
        ("issued", "report_id", "version"),
        frozenset({"issued", "version"}),
        source="reports",
        about="Versions of reports that name somebody, by the month of issue; relation: referring or reporting.",
    ),
    Table(
        "reading",
        {"study_uid": "text", "claimed_by": "text", "since": "text"},
        ("study_uid",),
        source="reading",
        about="Who is at the report of a study; empty: nobody any more.",
    ),
    Table(
        "reading_by_person",
        {"actor": "text", "study_uid": "text", "since": "text"},
        ("actor",),
        ("study_uid",),
        source="reading",
        about="What somebody has claimed and not given back; reading says whether somebody else has it by now.",
    ),
    Table(
        "reading_waiting",
        {
            "site": "text",
            "modality": "text",
            "month": "text",
            "rank": "int",
            "first_arrival": "timestamp",
            "study_uid": "text",
            "why": "text",
            "since": "timestamp",
        },
        ("site", "modality", "month"),
        ("rank", "first_arrival", "study_uid"),
        source="study.arrivals, study.corrections, reports and orders together (streams.to_read)",
        about="What waits for a report, by sending site, modality (empty: all) and month of arrival; rank: place of its"
        " priority; why: new-images or taken-back where it had one. Its timestamp grows with all that is known.",
    ),
    Table(
        "priorities_by_accession",
        {
            "site": "text",
            "accession": "text",
            "order_id": "text",
            "version": "int",
            "status": "text",
            "priority": "text",
            "study_uid": "text",
            "patient_key": "text",
            "authored": "text",
        },
        ("site", "accession"),
        ("order_id",),
        source="orders",
        about="How urgent the orders of a site's accession number are; without a status: one that has another by now.",
    ),
    Table(
        "report_reads",
        {"actor": "text", "study_uid": "text", "access_id": "text", "occurred": "text", "last_used": "text"},
        ("actor", "study_uid"),
        ("access_id",),
        frozenset({"access_id"}),
        source="accesses",
        about="When somebody saw the reports of a study; newest first, since access_id is a UUIDv7.",
    ),
    Table(
        "reports_by_day",
        {"day": "text", "moment": "text", "report_id": "text", "version": "int"},
        ("day",),
        ("moment", "report_id", "version"),
        frozenset({"moment"}),
        source="reports",
        about="Versions of reports by the day (UTC) and moment on which they reached the log, newest first.",
    ),
    Table(
        "milestones",
        {"study_uid": "text", "step": "text", "at": "timestamp", "of": "text", "kind": "text"},
        ("study_uid",),
        ("step", "at", "of"),
        source="each step from one topic: orders, reports, accesses",
        about="When a study was ordered, opened, reported, delivered and read: a row each time, the first one counts.",
    ),
    Table(
        "times_of_studies",
        {"site": "text", "slot": "text", "study_uid": "text", "cell": "text", "codes": "blob", "stamp": "bigint"},
        ("site", "slot"),
        ("study_uid",),
        source="all topics that know of a study's way together (streams.times)",
        about="What each study adds to the times of the site that sent its first pack and the ten seconds of that"
        " (YYYYMMDDHHMMS, UTC): modalities and priority, and the bucket of each interval (schemas.times). Its timestamp"
        " is its stamp, which grows with all that is known.",
    ),
    Table(
        "times_by_slot",
        {"site": "text", "hour": "text", "slot": "text", "cells": _CELLS, "counts": "blob", "stamp": "bigint"},
        ("site", "hour"),
        ("slot",),
        source="sums of times_of_studies (streams.times)",
        about="The same of a site and ten seconds: an hour of many studies is added up from these. Its timestamp is the"
        " sum of the stamps of its studies.",
    ),
    Table(
        "times_by_site",
        {"site": "text", "month": "text", "hour": "text", "cells": _CELLS, "counts": "blob"},
        ("site", "month"),
        ("hour",),
        source="sums of times_by_slot (streams.times)",
        about="How often studies of a site and an hour took how long, by modalities and priority: counts of buckets"
        " (schemas.times). Its timestamp is the sum of the stamps of its studies.",
    ),
    _accesses("accesses_by_study", {"study_uid": "text", "access_id": "text"}, 1, "Who saw a study"),
    _accesses(
        "accesses_by_patient",
        {"patient_key": "text", "month": "text", "access_id": "text", "study_uid": "text"},
        2,
        "Who saw a patient's file, by month; an empty study_uid: the file itself",
    ),
    _accesses(
        "accesses_by_actor",
        {"actor": "text", "day": "text", "access_id": "text", "study_uid": "text", "patient_key": "text"},
        2,
        "What somebody saw on a day; of a search how many studies it showed",
        ("access_id",),
    ),
    _accesses(
        "accesses_by_hour",
        {"hour": "text", "access_id": "text", "study_uid": "text", "patient_key": "text"},
        1,
        "All accesses of an hour (YYYYMMDDHH), for one by its id and for what happened in a span of time",
        ("access_id",),
    ),
    _accesses(
        "accesses_denied",
        {"day": "text", "access_id": "text", "study_uid": "text", "patient_key": "text"},
        1,
        "Refusals of a day",
        ("access_id",),
    ),
    _accesses(
        "accesses_emergency",
        {
            "month": "text",
            "access_id": "text",
            "study_uid": "text",
            "patient_key": "text",
            "bucket": "text",
            "document_key": "text",
            "document_sha256": "text",
        },
        1,
        "Who was let in without a relation in a month, and where the reason stands",
        ("access_id",),
    ),
    Table(
        "emergencies_by_actor",
        {"actor": "text", "access_id": "text", "study_uid": "text", "patient_key": "text", "until": "text"},
        ("actor",),
        ("access_id",),
        frozenset({"access_id"}),
        source="accesses",
        about="Which studies and patients somebody has been let in to without a relation, and until when.",
    ),
    Table(
        "studies_by_reporter",
        {"person_id": "text", "report_id": "text", "study_uid": "text", "relation": "text"},
        ("person_id",),
        ("report_id", "study_uid"),
        source="reports",
        about="Studies whose reports name somebody; relation: referring or reporting.",
    ),
    Table(
        "treating_by_person",
        {
            "person_id": "text",
            "patient_key": "text",
            "study_uid": "text",
            "relation": "text",
            "until": "text",
            "ended": "boolean",
            "stated_by": "text",
            "stated": "text",
        },
        ("person_id",),
        ("patient_key", "study_uid"),
        source="patients",
        about="Whom somebody treats, as stated, and which study is shared with them (study_uid), until when.",
    ),
    Table(
        "people",
        {
            "person_id": "text",
            "version": "int",
            "active": "boolean",
            "roles": "frozen<list<text>>",
            "sites": "frozen<list<text>>",
            "subspecialties": "frozen<list<text>>",
            "stated_by": "text",
            "recorded": "text",
            "bucket": "text",
            "document_key": "text",
            "document_sha256": "text",
        },
        ("person_id",),
        source="people",
        about="Staff as they are now; who they are is in the document.",
    ),
    Table(
        "people_by_site",
        {"site": "text", "person_id": "text", "version": "int"},
        ("site",),
        ("person_id",),
        source="people",
        about="Who has ever been of a site; whether they still are stands in people.",
    ),
    Table(
        "staff_by_name",
        # `prefix`: the token's first two characters
        {"prefix": "text", "token": "text", "person_id": "text", "version": "int"},
        ("prefix",),
        ("token", "person_id"),
        source="people",
        about="Staff by the words of their names, folded and as they sound; how they are called now is in people.",
    ),
    Table(
        "register_changes",
        {
            "kind": "text",
            "year": "text",
            "moment": "text",
            "event_id": "text",
            "subject": "text",
            "what": "text",
            "before": "text",
            "after": "text",
            "actor": "text",
            "recorded": "text",
        },
        ("kind", "year"),
        ("moment", "event_id"),
        descending=frozenset({"moment", "event_id"}),
        source="sites",
        about="What people decided of devices (kind device) and of endpoints of subscriptions, newest first.",
    ),
    Table(
        "steps_by_study",
        {
            "study_uid": "text",
            "step_uid": "text",
            "status": "text",
            "site": "text",
            "station_ae": "text",
            "modality": "text",
            "started": "text",
            "ended": "text",
            "instances": "int",
            "sops": "blob",  # hashes of the listed instances' UIDs (streams.pack_rows.sop_hash), one behind the other
            "document_key": "text",
        },
        ("study_uid",),
        ("step_uid",),
        source="orders",
        about="Performed procedure steps of a study: in-progress, completed or discontinued, and what they list.",
    ),
    Table(
        "steps_by_accession",
        {"site": "text", "accession": "text", "step_uid": "text", "study_uid": "text", "status": "text"},
        ("site", "accession"),
        ("step_uid",),
        source="orders",
        about="Performed procedure steps by the site's accession number, for orders whose device uses a study UID of"
        " its own.",
    ),
    Table(
        "deliveries_by_report",
        {
            "report_id": "text",
            "version": "int",
            "destination": "text",
            "delivery_id": "text",
            "occurred": "text",
            "attempt": "int",
        },
        ("report_id",),
        ("version", "destination", "delivery_id"),
        frozenset({"version"}),
        source="reports",
        about="Which destination has which version of a report, and since when.",
    ),
    Table(
        "deliveries_by_study",
        {
            "study_uid": "text",
            "destination": "text",
            "delivery_id": "text",
            "occurred": "text",
            "attempt": "int",
        },
        ("study_uid",),
        ("destination", "delivery_id"),
        source="study.lifecycle",
        about="Which destination was told of a study, and when.",
    ),
    Table(
        "pending_studies",
        {
            "arrivals_partition": "int",
            "bucket": "bigint",
            "study_uid": "text",
            "record_offset": "bigint",
            "arrival": "timestamp",
        },
        ("arrivals_partition", "bucket"),
        ("study_uid", "record_offset"),
        source="study.arrivals",
        about="Completeness timers: a study's last arrival by its minute of the log; gone when completed or overtaken.",
    ),
    Table(
        "orders",
        {"order_id": "text", **ORDER_COLUMNS},
        ("order_id",),
        ("version",),
        frozenset({"version"}),
        source="orders",
        about="All versions of an order.",
    ),
    _orders("orders_by_patient", ("patient_key",), "The orders of a patient as they are now."),
    _orders("orders_by_accession", ("site", "accession"), "The orders of a site's accession number as they are now."),
    _orders(
        "orders_by_site_day",
        ("site", "day"),
        "The orders of a day where the site is, as they are now: the clerk's list and the modality worklist.",
    ),
    _orders("orders_by_referrer", ("requester",), "The orders by which somebody refers patients, as they are now."),
    Table(
        "orders_by_study",
        {"study_uid": "text", "order_id": "text", "basis": "text", "site": "text", "recorded": "text"},
        ("study_uid",),
        ("order_id",),
        source="study.arrivals",
        about="Which orders expect a study, and why: it has the UID that the order gave, or its accession number.",
    ),
    Table(
        "studies_by_order",
        {"order_id": "text", "study_uid": "text", "basis": "text", "site": "text", "recorded": "text"},
        ("order_id",),
        ("study_uid",),
        source="study.arrivals",
        about="Which studies an order expects, and why: looked at when the order changes.",
    ),
    Table(
        "projection_positions",
        {"projection": "text", "topic": "text", "partition": "int", "next_offset": "bigint", "log_time": "timestamp"},
        ("projection",),
        ("topic", "partition"),
        source="all",
        about="How far each projection is: next offset to apply and the log time of the record before it."
        " views: the read models. completeness: no arrival before that offset is pending.",
    ),
)
BY_NAME: dict[str, Table] = {t.name: t for t in TABLES}

# What is not derived from the log: backed up, never rebuilt. Write timestamps here are the clock's microseconds.
STATE_TABLES: tuple[Table, ...] = (
    Table(
        "active_views",
        {"name": "text", "keyspace_name": "text", "switched": "timestamp"},
        ("name",),
        about="Which keyspace answers: the one row 'active'. A rebuild fills another and switches here.",
    ),
    Table(
        "patient_secrets",
        {"name": "text", "fingerprints": "frozen<list<text>>"},
        ("name",),
        about="By which secrets patient keys are made, the newest first: the one row 'patient'. Two: one replaces the"
        " other.",
    ),
    Table(
        "patient_secret_holders",
        {"name": "text", "holder": "text", "seen": "timestamp"},
        ("name",),
        ("holder",),
        about="Who makes patient keys at this moment, or retires a secret: each says so again every few seconds.",
        ttl_s=HOLDER_TTL_S,
    ),
    Table(
        "ae_titles",
        {
            "ae_title": "text",
            "host": "text",
            "port": "int",
            "site": "text",
            "role": "text",
            "issuer": "text",
            "certificate": "text",
            "tls": "boolean",
        },
        ("ae_title",),
        about="Who may call by DICOM, and where to send to.",
    ),
    Table(
        "sessions",
        {"session_id": "text", "sealed": "text", "ends": "timestamp"},
        ("session_id",),
        about="Sessions of browsers by the SHA-256 of their cookie; sealed: their tokens, encrypted.",
        ttl_s=86_400,
    ),
    Table(
        "report_drafts",
        {
            "author": "text",
            "study_uid": "text",
            "save_id": "text",
            "saved": "text",
            "begun": "text",
            "content": "text",
        },
        ("author",),
        ("study_uid",),
        about="What somebody has written of a report that is not signed, JSON (schemas.drafts), and which save it is.",
        ttl_s=180 * 86_400,
    ),
    Table(
        "delivery_cursors",
        {"destination": "text", "topic": "text", "partition": "int", "next_offset": "bigint"},
        ("destination",),
        ("topic", "partition"),
        about="How far a destination's outbox has followed the log: everything before has its rows.",
    ),
    Table(
        "delivery_hours",
        {"destination": "text", "hour": "text"},
        ("destination",),
        ("hour",),
        about="Hours (YYYYMMDDHH, UTC) of which a destination may have open deliveries.",
    ),
    Table(
        "deliveries_open",
        {
            "destination": "text",
            "hour": "text",
            "delivery_id": "text",
            "subject": "text",
            "event_type": "text",
            "event": "text",  # JSON, as on the log
            "recorded": "timestamp",  # of the record in the log
            "topic": "text",
            "partition": "int",
            "offset": "bigint",
            "asked_by": "text",
            "state": "text",
            "attempts": "int",
            "next_attempt": "timestamp",
            "reason": "text",
        },
        ("destination", "hour"),
        ("delivery_id",),
        about="What a destination has not got yet, by the hour of its record; gone when it has. state: queued,"
        " retrying, waiting (for what the destination or the archive does not know yet) or refused.",
    ),
    Table(
        "delivery_requests",
        {
            "destination": "text",
            "request_id": "text",
            "subject": "text",
            "event_type": "text",
            "event": "text",
            "asked_by": "text",
        },
        ("destination",),
        ("request_id",),
        about="What people asked to be delivered again; no subject: whatever waits or was refused. Gone when done.",
        ttl_s=2_592_000,
    ),
    Table(
        "delivery_filed",
        {
            "destination": "text",
            "subject": "text",
            "patient_key": "text",
            "patient_system": "text",
            "patient_value": "text",
            "version": "int",
            "status": "text",
            "filed": "timestamp",
        },
        ("destination", "subject"),
        ("patient_key",),
        about="Under which patients a destination has, or may have, a report or a study: it is taken back where it is"
        " not theirs any more.",
    ),
    Table(
        "hl7_senders",
        {"facility": "text", "network": "text", "site": "text", "issuer": "text", "certificate": "text"},
        ("facility",),
        about="Who may send HL7 v2, and for which site; the facility * is any.",
    ),
    Table(
        "hl7_messages",
        {"message_id": "text", "kind": "text", "site": "text", "answered": "text"},
        ("message_id",),
        about="Messages that were answered AA: sent again, they change nothing.",
        ttl_s=90 * 86_400,
    ),
    Table(
        "results_waiting",
        {
            "state": "text",
            "waiting_id": "text",
            "received": "text",
            "site": "text",
            "actor": "text",
            "reason": "text",
            "number": "text",
            "accessions": "frozen<list<text>>",
            "study_uids": "frozen<list<text>>",
            "status": "text",
            "procedure": "text",
            "patient_numbers": "frozen<list<text>>",
            "patient_name": "text",
            "birth_date": "text",
            "sex": "text",
            "message_id": "text",
            "message_key": "text",
            "place": "int",
            "decision": "text",
            "decided_study": "text",
            "decided_by": "text",
            "decided": "text",
            "decided_reason": "text",
            "outcome": "text",
            "report_id": "text",
            "issuer": "text",
        },
        ("state",),
        ("waiting_id",),
        about="Results that wait for their study or for a person (state: waiting), and what became of them"
        " (done-YYYYMM).",
    ),
    Table(
        "invitations",
        {
            "invitation_id": "text",
            "patient_key": "text",
            "order_id": "text",
            "factor": "text",
            "once": "boolean",
            "expires": "timestamp",
            "sealed": "text",
            "code_hash": "text",
            "code_expires": "timestamp",
            "opened": "timestamp",
            "revoked": "timestamp",
        },
        ("invitation_id",),
        about="Links by which patients open their files; sealed: the phone that a code is sent to, encrypted.",
        ttl_s=INVITATION_TTL_S,
    ),
    Table(
        "invitation_attempts",
        {"invitation_id": "text", "attempt_id": "text", "kind": "text", "at": "timestamp"},
        ("invitation_id",),
        ("attempt_id",),
        frozenset({"attempt_id"}),
        about="What was tried with a link (tried, opened, sent), newest first: few of each are allowed.",
        ttl_s=INVITATION_TTL_S,
    ),
    Table(
        "invitations_by_patient",
        {"patient_key": "text", "invitation_id": "text"},
        ("patient_key",),
        ("invitation_id",),
        frozenset({"invitation_id"}),
        about="The links of a patient, newest first.",
        ttl_s=INVITATION_TTL_S,
    ),
    Table(
        "patient_sessions",
        {"session_id": "text", "patient_key": "text", "invitation_id": "text", "ends": "timestamp"},
        ("session_id",),
        about="Patients who opened a link, by the SHA-256 of their cookie.",
        ttl_s=86_400,
    ),
    Table(
        "subscriptions",
        {
            "subscription_id": "text",
            "version": "int",
            "owner": "text",
            "wanted": "text",
            "topic": "text",
            "endpoint": "text",
            "reason": "text",
            "sealed": "text",
            "heartbeat_s": "int",
            "timeout_s": "int",
            "ends": "timestamp",
            "since": "timestamp",
            "changed": "timestamp",
        },
        ("subscription_id",),
        about="FHIR subscriptions as they were asked for; wanted: on, off or deleted; sealed: the headers of the"
        " channel, encrypted; since: when it was last switched on.",
    ),
    Table(
        "subscription_progress",
        {
            "subscription_id": "text",
            "version": "int",
            "number": "bigint",
            "delivery_id": "text",
            "tried": "int",
            "error": "text",
            "sent": "timestamp",
        },
        ("subscription_id",),
        about="How far the delivery of a subscription is: the version whose handshake was answered, the number of its"
        " last event and which delivery that is, the version that was last tried and what was wrong, when something was"
        " last taken.",
    ),
    Table(
        "subscription_endpoints",
        {"prefix": "text", "approved_by": "text", "approved": "timestamp"},
        ("prefix",),
        about="Where notifications may go: what their addresses begin with, and who approved it.",
    ),
)
