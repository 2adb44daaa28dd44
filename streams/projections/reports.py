"""report.issued → versions of a report, and the reports of each study it covers."""

from __future__ import annotations

from schemas.events import ReportIssued
from schemas.tables import Upsert, Write
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
    }
    version = {"report_id": event.report_id, "version": event.version}
    writes: list[Write] = [Upsert("reports", version, {**columns, "study_uids": list(event.study_uids)}, fact.offset)]
    for uid in dict.fromkeys(event.study_uids):
        writes.append(Upsert("reports_by_study", {"study_uid": uid, **version}, columns, fact.offset))
        for named in event.people:
            key = {"person_id": named.person_id, "report_id": event.report_id, "study_uid": uid}
            writes.append(Upsert("studies_by_reporter", key, {"relation": named.relation}, fact.offset))
    return writes
