"""Every read of the read models, named, with its partition key. There are no others, and none scans a table."""

from __future__ import annotations

from infra.ports import Select
from schemas.tables import BY_NAME

# A study as lists show and filter it, without its header.
STUDY_LIST = (
    "study_uid", "study_date", "study_time", "patient_key", "patient_id", "patient_name", "birth_date", "sex",
    "accession", "description", "referring", "study_id", "modalities", "sop_classes", "series_count",
    "instance_count",
)  # fmt: skip
_WITH_HEADER = (*STUDY_LIST, "attributes")


def _columns(table: str, header: bool) -> tuple[str, ...]:
    """What a list needs of an index, and its clustering key, by which its pages continue."""
    wanted = _WITH_HEADER if header else STUDY_LIST
    return tuple(dict.fromkeys((*wanted, *BY_NAME[table].clustering)))


# ------------------------------------------------------------------------------------------------ one study


def study(study_uid: str, *, header: bool = True) -> Select:
    """A study as lists show it: one row."""
    return Select("studies", {"study_uid": study_uid}, _columns("studies", header))


def study_state(study_uid: str) -> Select:
    """A study with its completeness: one row."""
    return Select("studies", {"study_uid": study_uid})


def study_owner(study_uid: str) -> Select:
    """Whose study it is: one row."""
    return Select("studies", {"study_uid": study_uid}, ("patient_key",))


def series_of(study_uid: str, series_uid: str = "") -> Select:
    """The series of a study, or one of them."""
    where = {"study_uid": study_uid} | ({"series_uid": series_uid} if series_uid else {})
    return Select("series", where)


_COPY = (
    "series_uid", "sop_uid", "record_offset", "line", "pack_id", "sop_class", "transfer_syntax", "tar_offset",
    "length", "dataset_offset", "frames",
)  # fmt: skip
_LISTED = (
    "study_uid", "series_uid", "sop_uid", "record_offset", "line", "sop_class", "transfer_syntax", "instance_number",
    "attributes",
)  # fmt: skip


def copies(study_uid: str, series_uid: str = "", sop_uid: str = "") -> Select:
    """Where the bytes of a study's, a series' or one instance's copies lie; of each instance the first copy first."""
    return Select("instances", _below(study_uid, series_uid, sop_uid), _COPY)


def first_copy(study_uid: str, series_uid: str, sop_uid: str) -> Select:
    """Where the served copy of an instance lies: one row."""
    return Select("instances", _below(study_uid, series_uid, sop_uid), _COPY, limit=1)


def instances_of(study_uid: str, series_uid: str = "", sop_uid: str = "") -> Select:
    """The instances as lists show them: all copies, the first one first."""
    return Select("instances", _below(study_uid, series_uid, sop_uid), _LISTED)


def _below(study_uid: str, series_uid: str, sop_uid: str) -> dict[str, str]:
    where = {"study_uid": study_uid}
    if series_uid:
        where["series_uid"] = series_uid
        if sop_uid:
            where["sop_uid"] = sop_uid
    return where


def instance_by_uid(sop_uid: str) -> Select:
    """Studies, series and SOP classes under which an instance is kept."""
    return Select("instances_by_uid", {"sop_uid": sop_uid})


def pack(pack_id: str) -> Select:
    """Where a pack lies in each tier: one row."""
    return Select("packs", {"pack_id": pack_id})


def packs_of(study_uid: str) -> Select:
    """The packs of a study in log order."""
    return Select(
        "packs_by_study", {"study_uid": study_uid}, ("study_uid", "record_offset", "pack_id", "arrival", "site")
    )


# ------------------------------------------------------------------------------------------------ studies by …


def by_patient(patient_key: str, *, header: bool = False) -> Select:
    """A patient's file, newest first."""
    return Select("studies_by_patient", {"patient_key": patient_key}, _columns("studies_by_patient", header))


def by_patient_id(patient_id: str, *, header: bool = False) -> Select:
    """Studies under a PatientID, newest first."""
    return Select("studies_by_patient_id", {"patient_id": patient_id}, _columns("studies_by_patient_id", header))


def by_accession(accession: str, *, header: bool = False) -> Select:
    """Studies of an accession number."""
    return Select("studies_by_accession", {"accession": accession}, _columns("studies_by_accession", header))


def by_day(day: str, shard: int, *, header: bool = False) -> Select:
    """A shard of a day, newest first."""
    return Select("studies_by_day", {"day": day, "shard": shard}, _columns("studies_by_day", header))


def by_name_token(token: str, month: str, shard: int, *, header: bool = False) -> Select:
    """A shard of a token's month, newest first."""
    where = {"token": token, "month": month, "shard": shard}
    return Select("studies_by_name_token", where, _columns("studies_by_name_token", header))


def days(century: str, first: str = "", last: str = "") -> Select:
    """Shards of the days of a century that have studies, newest first, within [first, last]."""
    return Select(
        "study_days",
        {"century": century},
        ("day", "shard"),
        lower=("day", first) if first else None,
        upper=("day", last + "\0") if last else None,
    )


def tokens(start: str, limit: int) -> Select:
    """Tokens of the vocabulary that begin with `start` (at least two characters), in order."""
    return Select(
        "name_tokens",
        {"prefix": start[:2]},
        ("token",),
        limit,
        lower=("token", start),
        upper=("token", start + "\U0010ffff"),
    )


def token_months(token: str) -> Select:
    """Shards of the months in which a token has studies, newest first."""
    return Select("name_token_months", {"token": token}, ("month", "shard"))


# ------------------------------------------------------------------------------------------------ people and papers


def patient(patient_key: str) -> Select:
    """Who a patient key is: one row."""
    return Select("patients", {"patient_key": patient_key})


def reports_of(study_uid: str) -> Select:
    """Versions of the reports of a study; of each report the newest first."""
    return Select("reports_by_study", {"study_uid": study_uid})


def report(report_id: str) -> Select:
    """All versions of a report, newest first."""
    return Select("reports", {"report_id": report_id})


def report_version(report_id: str, version: int) -> Select:
    """One version: one row."""
    return Select("reports", {"report_id": report_id, "version": version})


def accesses_of_study(study_uid: str, limit: int) -> Select:
    """Who saw a study, newest first."""
    return Select("accesses_by_study", {"study_uid": study_uid}, limit=limit)


def accesses_of_patient(patient_key: str, month: str, limit: int) -> Select:
    """Who saw a patient's file in a month (YYYYMM), newest first."""
    return Select("accesses_by_patient", {"patient_key": patient_key, "month": month}, limit=limit)


def conflicts(month: str, limit: int) -> Select:
    """Conflicts found in a month (YYYYMM), newest first."""
    return Select("conflicts", {"month": month}, limit=limit)


def rejections(day: str, limit: int) -> Select:
    """What the doors refused on a day (YYYYMMDD), newest first."""
    return Select("rejections", {"day": day}, limit=limit)


def positions(projection: str) -> Select:
    """How far a projection is, by topic and partition."""
    return Select("projection_positions", {"projection": projection})
