"""report.issued → versions of a report, the reports of each study it covers; report.critical-… → who is to be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.events import CriticalAcknowledged, CriticalEscalated, CriticalRaised, ReportIssued
from schemas.tables import Delete, Upsert, Write
from streams import milestones
from streams.facts import Fact


def issued(fact: Fact, event: ReportIssued) -> list[Write]:
    """All versions stay; the highest is the current one."""
    columns = {
        "status": event.status,
        "site": event.site,
        "issued": event.issued,
        "bucket": event.bucket,
        "document_key": event.document_key,
        "document_size": event.document_size,
        "document_sha256": event.document_sha256,
        "author": event.author,
        "signed_by": event.signed_by,
        "signed": event.signed or "",
        "critical": event.critical,
        "source_sop_uid": event.source_sop_uid or "",
    }
    version = {"report_id": event.report_id, "version": event.version}
    of_report = {"study_uids": list(event.study_uids), "moment": fact.log_time}
    writes: list[Write] = [Upsert("reports", version, {**columns, **of_report}, fact.offset)]
    day = {"day": fact.day, "moment": fact.log_time, **version}
    writes.append(Upsert("reports_by_day", day, {}, fact.offset))
    for uid in dict.fromkeys(event.study_uids):
        writes.append(Upsert("reports_by_study", {"study_uid": uid, **version}, columns, fact.offset))
        for named in event.people:
            key = {"person_id": named.person_id, "report_id": event.report_id, "study_uid": uid}
            writes.append(Upsert("studies_by_reporter", key, {"relation": named.relation}, fact.offset))
    for named in event.people:
        theirs = {"person_id": named.person_id, "month": event.issued[:7].replace("-", ""), "issued": event.issued}
        told = {"relation": named.relation, "status": event.status, "study_uids": list(event.study_uids)}
        writes.append(Upsert("reports_by_person", {**theirs, **version}, told, fact.offset))
    return writes + milestones.of_report(fact, event)


def critical_raised(fact: Fact, event: CriticalRaised) -> list[Write]:
    """It waits for the first contact."""
    columns = {
        "critical_id": event.critical_id,
        "study_uids": list(event.study_uids),
        "site": event.site,
        "raised_by": event.raised_by,
        "raised": event.raised,
        "contacts": list(event.contacts),
        "within_s": event.within_s,
        "level": 0,
        "contact": event.contacts[0] if event.contacts else "",
        "due": event.due,
    }
    return _both(fact, event, columns)


def critical_escalated(fact: Fact, event: CriticalEscalated) -> list[Write]:
    """It waits for another one."""
    return _both(fact, event, {"level": event.level, "contact": event.contact, "due": event.due})


def critical_acknowledged(fact: Fact, event: CriticalAcknowledged) -> list[Write]:
    """It waits no more."""
    columns = {
        "clinician": event.clinician,
        "recorded_by": event.recorded_by,
        "channel": event.channel,
        "acknowledged": event.acknowledged,
        "bucket": event.bucket,
        "document_key": event.document_key,
        "document_sha256": event.document_sha256,
    }
    key = {"report_id": event.report_id, "version": event.version}
    return [
        Upsert("criticals", key, columns, fact.offset),
        Delete("criticals_open", {"reports_partition": fact.partition, **key}, fact.offset),
    ]


def _both(fact: Fact, event: CriticalRaised | CriticalEscalated, columns: Mapping[str, Any]) -> list[Write]:
    key = {"report_id": event.report_id, "version": event.version}
    return [
        Upsert("criticals", key, columns, fact.offset),
        Upsert("criticals_open", {"reports_partition": fact.partition, **key}, columns, fact.offset),
    ]
