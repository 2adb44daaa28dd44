"""Every read of the read models, named, with its partition key. There are no others, and none scans a table."""

from __future__ import annotations

from datetime import datetime

from infra.ports import Select
from schemas.identity import uid_stem
from schemas.names import PREFIX_LENGTH, TRIGRAM_LENGTH
from schemas.tables import BY_NAME, EVER

HIGHEST = "\U0010ffff"
"""Sorts behind every character that a text can go on with."""


def _listed(table: str) -> tuple[str, ...]:
    """What a list gives of an index: the answer, whose it is, and the clustering key, by which its pages continue."""
    return tuple(dict.fromkeys(("study_uid", "patient_key", "answer", "corrected", *BY_NAME[table].clustering)))


# ------------------------------------------------------------------------------------------------ one study


def study(study_uid: str) -> Select:
    """A study as lists show it: one row."""
    return Select("studies", {"study_uid": study_uid}, ("study_uid", "patient_key", "answer", "overlay"))


def study_header(study_uid: str) -> Select:
    """The header of a study: one row."""
    return Select("studies", {"study_uid": study_uid}, ("study_uid", "attributes"))


def study_state(study_uid: str) -> Select:
    """A study with its completeness: one row."""
    return Select("studies", {"study_uid": study_uid})


def study_owner(study_uid: str) -> Select:
    """Whose study it is: one row."""
    return Select("studies", {"study_uid": study_uid}, ("patient_key", "overlay"))


def study_place_of(study_uid: str) -> Select:
    """Whose study it is and which sites sent it: one row."""
    return Select("studies", {"study_uid": study_uid}, ("study_uid", "patient_key", "overlay", "sites"))


def patient_page(patient_key: str, limit: int) -> Select:
    """The newest studies of a patient, by their UIDs."""
    return Select("studies_by_patient", {"patient_key": patient_key}, ("study_uid",), limit=limit)


def treating(person_id: str, limit: int) -> Select:
    """What was stated of somebody: whom they treat, and what is shared with them."""
    return Select("treating_by_person", {"person_id": person_id}, limit=limit)


def reported(person_id: str, limit: int) -> Select:
    """The studies whose reports name somebody."""
    return Select("studies_by_reporter", {"person_id": person_id}, limit=limit)


def order(order_id: str) -> Select:
    """An order as it is now: one row."""
    return Select("orders", {"order_id": order_id}, limit=1)


def orders_of_day(site: str, day: str, limit: int) -> Select:
    """The orders of a site's day."""
    return Select("orders_by_site_day", {"site": site, "day": day}, limit=limit)


def orders_by_accession(site: str, accession: str) -> Select:
    """The orders of a site's accession number."""
    return Select("orders_by_accession", {"site": site, "accession": accession})


def referred(person_id: str, limit: int) -> Select:
    """Whom somebody refers, by their orders."""
    columns = ("order_id", "patient_key", "study_uid", "status")
    return Select("orders_by_referrer", {"requester": person_id}, columns, limit=limit)


def steps_of(study_uid: str) -> Select:
    """What devices say of their work on a study."""
    columns = ("step_uid", "status", "modality", "station_ae", "started", "ended", "instances")
    return Select("steps_by_study", {"study_uid": study_uid}, columns)


def arrived_for(accession: str, issuer: str) -> Select:
    """The studies of a site's accession number."""
    return Select("studies_by_accession", {"accession": accession, "accession_issuer": issuer}, ("study_uid",))


def person(person_id: str) -> Select:
    """Somebody on the staff as they are now: one row."""
    return Select("people", {"person_id": person_id})


def newest_report(report_id: str) -> Select:
    """The current version of a report: one row."""
    return Select("reports", {"report_id": report_id}, limit=1)


def staff_named(start: str, limit: int, *, whole: bool = False) -> Select:
    """Who has a word in their name that begins so (`whole`: that is so); a sound is one too (`schemas.sounds`)."""
    partition = {"prefix": start[:PREFIX_LENGTH]}
    if whole:
        return Select("staff_by_name", {**partition, "token": start}, limit=limit)
    upper = ("token", start + HIGHEST)
    return Select("staff_by_name", partition, limit=limit, lower=("token", start), upper=upper)


def register_changes(kind: str, year: str, limit: int, before: str) -> Select:
    """What was decided of devices or endpoints in a year, newest first; `before`: earlier than that moment."""
    upper = ("moment", before) if before else None
    return Select("register_changes", {"kind": kind, "year": year}, limit=limit, upper=upper)


def people_of(site: str, after: str, limit: int) -> Select:
    """Who has ever been of a site, by their ids from `after` on."""
    return Select("people_by_site", {"site": site}, limit=limit, lower=("person_id", after) if after else None)


def study_place(study_uid: str) -> Select:
    """Which partition of the arrivals a study is in: one row."""
    return Select("studies", {"study_uid": study_uid}, ("arrivals_partition",))


def series_of(study_uid: str, series_uid: str = "") -> Select:
    """The series of a study, or one of them."""
    where = {"study_uid": study_uid} | ({"series_uid": series_uid} if series_uid else {})
    return Select("series", where)


_COPY = (
    "series_uid", "sop_uid", "record_offset", "line", "pack_id", "sop_class", "transfer_syntax", "tar_offset",
    "length", "dataset_offset", "frames", "sha256",
)  # fmt: skip
_LISTED = (
    "study_uid",
    "series_uid",
    "sop_uid",
    "record_offset",
    "line",
    "sop_class",
    "transfer_syntax",
    "instance_number",
    "sha256",
    "attributes",
)
_MEMBERS = ("series_uid", "sop_uid", "record_offset", "line", "sop_class", "sha256")  # fmt: skip


def copies(study_uid: str, series_uid: str = "", sop_uid: str = "") -> Select:
    """Where the bytes of a study's, a series' or one instance's copies lie; of each instance the first copy first."""
    return Select("instances", _below(study_uid, series_uid, sop_uid), _COPY)


def first_copy(study_uid: str, series_uid: str, sop_uid: str) -> Select:
    """Where the served copy of an instance lies: one row."""
    return Select("instances", _below(study_uid, series_uid, sop_uid), _COPY, limit=1)


def instances_of(study_uid: str, series_uid: str = "", sop_uid: str = "") -> Select:
    """The instances as lists show them: all copies, the first one first."""
    return Select("instances", _below(study_uid, series_uid, sop_uid), _LISTED)


def members_of(study_uid: str) -> Select:
    """All copies of a study's instances, as counting needs them."""
    return Select("instances", {"study_uid": study_uid}, _MEMBERS)


def _below(study_uid: str, series_uid: str, sop_uid: str) -> dict[str, str]:
    where = {"study_uid": study_uid}
    if series_uid:
        where["series_uid"] = series_uid
        if sop_uid:
            where["sop_uid"] = sop_uid
    return where


def instance_by_uid(sop_uid: str) -> Select:
    """Studies, series and SOP classes under which an instance is kept."""
    return Select("instances_by_uid", {"stem": uid_stem(sop_uid), "sop_uid": sop_uid})


def pack(pack_id: str) -> Select:
    """Where a pack lies in each tier: one row."""
    return Select("packs", {"pack_id": pack_id})


def packs_of(study_uid: str) -> Select:
    """The packs of a study in log order."""
    return Select(
        "packs_by_study", {"study_uid": study_uid}, ("study_uid", "record_offset", "pack_id", "arrival", "site")
    )


# ------------------------------------------------------------------------------------------------ studies by …


def by_patient(patient_key: str) -> Select:
    """A patient's file, newest first."""
    return Select("studies_by_patient", {"patient_key": patient_key}, _listed("studies_by_patient"))


def by_patient_id(patient_id: str) -> Select:
    """Studies under a PatientID, newest first."""
    return Select("studies_by_patient_id", {"patient_id": patient_id}, _listed("studies_by_patient_id"))


def by_accession(accession: str) -> Select:
    """Studies of an accession number."""
    return Select("studies_by_accession", {"accession": accession}, _listed("studies_by_accession"))


def by_day(day: str) -> Select:
    """The studies of a day, newest first."""
    return Select("studies_by_day", {"day": day}, _listed("studies_by_day"))


def by_name_token(token: str, month: str, shard: int) -> Select:
    """A shard of a token's month, newest first."""
    where = {"token": token, "month": month, "shard": shard}
    return Select("studies_by_name_token", where, _listed("studies_by_name_token"))


def by_site_day(site: str, day: str) -> Select:
    """Studies of which a site sent something on a day of the log (UTC)."""
    return Select("studies_by_site_day", {"site": site, "day": day})


def sites(limit: int) -> Select:
    """Every site that has ever sent something."""
    return Select("sites_sending", {"within": EVER}, limit=limit)


def counts(within: str) -> Select:
    """How many studies the parts of a time have, newest first: its years, months or days, by partition of the topic."""
    return Select("study_counts", {"within": within}, ("part", "studies"))


def tokens(start: str, limit: int) -> Select:
    """Tokens of the vocabulary that begin with `start` (at least two characters), in order."""
    return Select(
        "name_tokens",
        {"prefix": start[:PREFIX_LENGTH]},
        ("token",),
        limit,
        lower=("token", start),
        upper=("token", start + HIGHEST),
    )


def tokens_with(piece: str, limit: int) -> Select:
    """Tokens of the vocabulary that have `piece` (at least three characters), each once for every time it has it."""
    return Select(
        "name_trigrams",
        {"trigram": piece[:TRIGRAM_LENGTH]},
        ("token",),
        limit,
        lower=("rest", piece),
        upper=("rest", piece + HIGHEST),
    )


def token_months(token: str, first: str = "", last: str = "") -> Select:
    """Months in which a token has studies, newest first, within [first, last] (YYYYMM; empty: open)."""
    return Select(
        "name_token_months",
        {"token": token},
        ("token", "month"),
        lower=("month", first) if first else None,
        upper=("month", last + HIGHEST) if last else None,
    )


# ------------------------------------------------------------------------------------------------ people and papers


def patient(patient_key: str) -> Select:
    """Who a patient key is: one row."""
    return Select("patients", {"patient_key": patient_key})


def newest_order(order_id: str) -> Select:
    """An order's current version: one row."""
    return Select("orders", {"order_id": order_id}, limit=1)


def orders_of_patient(patient_key: str, limit: int) -> Select:
    """Orders for a patient as they are now, in no order of time."""
    return Select("orders_by_patient", {"patient_key": patient_key}, limit=limit)


def delivered_of_study(study_uid: str) -> Select:
    """Which destinations were told of a study."""
    return Select("deliveries_by_study", {"study_uid": study_uid})


def delivered_of_report(report_id: str) -> Select:
    """Which destinations have which version of a report, the newest version first."""
    return Select("deliveries_by_report", {"report_id": report_id})


def orders_of_study(study_uid: str) -> Select:
    """Which orders a study belongs to."""
    return Select("orders_by_study", {"study_uid": study_uid})


def links_of(patient_key: str) -> Select:
    """Which files people joined to a patient's, and which they keep apart."""
    return Select("patient_links", {"patient_key": patient_key}, limit=200)


def link_decisions(month: str, limit: int) -> Select:
    """What was decided of files in a month (YYYYMM), newest first."""
    return Select("patient_links_by_month", {"month": month}, limit=limit)


def link_proposals(shard: int, limit: int) -> Select:
    """A part of the files that look like one person's."""
    return Select("link_proposals", {"shard": shard}, limit=limit)


def reports_of_day(day: str) -> Select:
    """Versions of reports that reached the log on a day (YYYYMMDD, UTC), newest first."""
    return Select("reports_by_day", {"day": day})


def reports_of(study_uid: str) -> Select:
    """Versions of the reports of a study; of each report the newest first."""
    return Select("reports_by_study", {"study_uid": study_uid})


def report(report_id: str) -> Select:
    """All versions of a report, newest first."""
    return Select("reports", {"report_id": report_id})


def report_version(report_id: str, version: int) -> Select:
    """One version: one row."""
    return Select("reports", {"report_id": report_id, "version": version})


def reports_naming(person_id: str, month: str, limit: int) -> Select:
    """Versions of reports that name somebody, those issued last first."""
    return Select("reports_by_person", {"person_id": person_id, "month": month}, limit=limit)


def report_read(actor: str, study_uid: str) -> Select:
    """When somebody saw a study's reports last: one row."""
    return Select("report_reads", {"actor": actor, "study_uid": study_uid}, limit=1)


def reading(study_uid: str) -> Select:
    """Who is at a study's report: one row."""
    return Select("reading", {"study_uid": study_uid})


def waiting(site: str, modality: str, month: str, rank: int, since: datetime | None, limit: int) -> Select:
    """What of a month waits for a report, of one priority, from a moment of arrival on."""
    where = {"site": site, "modality": modality, "month": month, "rank": rank}
    return Select("reading_waiting", where, limit=limit, lower=("first_arrival", since) if since else None)


def claimed_by(actor: str) -> Select:
    """What somebody has claimed and not given back."""
    return Select("reading_by_person", {"actor": actor}, limit=500)


def criticals_open(partition: int) -> Select:
    """Critical results of a partition of the topic of reports that nobody has read back."""
    return Select("criticals_open", {"reports_partition": partition})


def criticals_of(report_id: str) -> Select:
    """Critical results of a report, newest first."""
    return Select("criticals", {"report_id": report_id})


def milestones_of(study_uid: str) -> Select:
    """Steps of a study's way, each with its first time in front."""
    return Select("milestones", {"study_uid": study_uid})


def times_of(site: str, month: str, first: str, beyond: str) -> Select:
    """How long studies of a site took, by hour of arrival (YYYYMMDDHH, UTC), from `first` to before `beyond`."""
    return Select("times_by_site", {"site": site, "month": month}, lower=("hour", first), upper=("hour", beyond))


def accesses_of_study(study_uid: str) -> Select:
    """Who saw a study, newest first."""
    return Select("accesses_by_study", {"study_uid": study_uid})


def accesses_of_patient(patient_key: str, month: str) -> Select:
    """Who saw a patient's file in a month (YYYYMM), newest first."""
    return Select("accesses_by_patient", {"patient_key": patient_key, "month": month})


def accesses_of_actor(actor: str, day: str) -> Select:
    """What somebody saw on a day (YYYYMMDD), newest first."""
    return Select("accesses_by_actor", {"actor": actor, "day": day})


def accesses_of_hour(hour: str) -> Select:
    """All accesses of an hour (YYYYMMDDHH), newest first."""
    return Select("accesses_by_hour", {"hour": hour})


def access(hour: str, access_id: str) -> Select:
    """An access by its id: one row. `hour` is that of the id."""
    return Select("accesses_by_hour", {"hour": hour, "access_id": access_id})


def refusals(day: str) -> Select:
    """Who was refused on a day (YYYYMMDD), newest first."""
    return Select("accesses_denied", {"day": day})


def emergencies(month: str) -> Select:
    """Who was let in without a relation in a month (YYYYMM), newest first."""
    return Select("accesses_emergency", {"month": month})


def emergencies_of(actor: str, limit: int) -> Select:
    """What somebody has been let in to without a relation, newest first."""
    return Select("emergencies_by_actor", {"actor": actor}, limit=limit)


def conflicts(month: str, limit: int) -> Select:
    """Conflicts found in a month (YYYYMM), newest first."""
    return Select("conflicts", {"month": month}, limit=limit)


def proposals(month: str, limit: int) -> Select:
    """Studies of a month (YYYYMM) whose patient a person should look at."""
    return Select("identity_proposals", {"month": month}, limit=limit)


def corrections_of(study_uid: str) -> Select:
    """What people decided of a study, in the order of the log."""
    return Select("corrections", {"study_uid": study_uid})


def corrections(month: str, limit: int) -> Select:
    """Corrections of a month (YYYYMM), newest first."""
    return Select("corrections_by_month", {"month": month}, limit=limit)


def rejections(day: str, limit: int) -> Select:
    """What the doors refused on a day (YYYYMMDD), newest first."""
    return Select("rejections", {"day": day}, limit=limit)


def positions(projection: str) -> Select:
    """How far a projection is, by topic and partition."""
    return Select("projection_positions", {"projection": projection})
