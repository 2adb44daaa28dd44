"""The health record as a destination: studies when they are complete, reports in every version.

The steps of a filing:
1. what it is and whose it is, as the read models have it now
2. where the record has it under another patient, it is entered in error there, and that is forgotten here
3. that it is about to be filed under this patient is noted here
4. study and report are filed in one transaction
One delivery of a study goes on at a time: two would create it twice, or file it under two patients.
A crash repeats the steps, and each changes nothing the second time: also what was filed between 3 and 4 under a patient
who is the wrong one meanwhile is found and taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumers.delivery.destination import Around, Destination
from consumers.delivery.dossier import Dossiers, Report, Study, row_of
from consumers.delivery.ehr import bundle
from consumers.delivery.ehr.bundle import Subject
from consumers.delivery.ehr.client import FhirClient, Unsuitable
from consumers.delivery.ehr.filed import Filed, Filing
from consumers.delivery.entry import (
    PATIENT,
    REPORT,
    STUDY,
    Delivered,
    Entry,
    Instead,
    NotNeeded,
    Outcome,
    Refused,
    Waiting,
)
from consumers.delivery.turns import Turns
from infra import faults
from infra.ports import Tables
from schemas.events import (
    Event,
    PatientLinked,
    PatientUnlinked,
    ReportIssued,
    StudyCompleted,
    StudyCorrected,
    StudyReassigned,
    StudyRejected,
    StudyRestored,
)
from schemas.topics import topic_of

NAME = "ehr"
PATIENT_UNKNOWN = Waiting("patient-unknown")
OF_PATIENTS = (PatientLinked, PatientUnlinked)
OF_STUDIES = (StudyCompleted, StudyCorrected, StudyReassigned, StudyRejected, StudyRestored)


def make(around: Around) -> Sequence[Destination]:
    """The record that the settings name; none without SIJIL_EHR_URL."""
    settings = around.settings
    if not settings.ehr_url:
        return ()
    client = FhirClient(
        settings.ehr_url, token=settings.ehr_token, ca_file=settings.ehr_ca_file, timeout_s=settings.ehr_timeout_s
    )
    dossiers = Dossiers(settings, around.tables, around.objects, around.printed)
    create = bool(settings.ehr_create_patients)
    return (Ehr(client, dossiers, around.state(), system=settings.ehr_patient_system, create=create),)


class Ehr:
    """Files under patients whom the record knows by their national ID."""

    name = NAME
    topics = tuple(dict.fromkeys(topic_of(t) for t in (ReportIssued, *OF_STUDIES, *OF_PATIENTS)))

    def __init__(self, client: FhirClient, dossiers: Dossiers, state: Tables, *, system: str, create: bool) -> None:
        """`system`: what the record calls the national ID. `create`: whether patients may be created there."""
        self._client, self._dossiers, self._system, self._create = client, dossiers, system, create
        self._filing = Filing(state, self.name)
        self._turns = Turns()

    def subjects(self, event: Event) -> Sequence[str]:
        if isinstance(event, ReportIssued):
            return (REPORT + event.report_id,)
        if isinstance(event, OF_PATIENTS):
            return (PATIENT + event.patient_key,)
        return (STUDY + event.study_uid,) if isinstance(event, OF_STUDIES) else ()

    async def deliver(self, entry: Entry) -> Outcome:
        if isinstance(entry.event, ReportIssued):
            async with self._turns.of(entry.event.study_uids):
                return await self._report(entry, entry.event)
        if isinstance(entry.event, OF_PATIENTS) and entry.subject.startswith(PATIENT):
            # Nothing of either file moved, but whose its studies are.
            files = (entry.event.patient_key, entry.event.other_key)
            return Instead(tuple(STUDY + uid for uid in await self._dossiers.studies_of(files)))
        uid = entry.subject.removeprefix(STUDY)
        async with self._turns.of((uid,)):
            return await self._study(entry, uid)

    async def close(self) -> None:
        await self._client.close()

    # ---------------------------------------------------------------------------------------------- reports

    async def _report(self, entry: Entry, event: ReportIssued) -> Outcome:
        # Step 1
        found = [await self._dossiers.study(uid) for uid in event.study_uids]
        studies = [s for s in found if s is not None]
        if len(studies) < len(found):
            return Waiting("study-unknown")
        keys = {s.person.patient_key for s in studies}
        if len(keys) > 1:
            return Waiting("patients-differ")
        subject = self._subject(studies[0])
        (key,) = keys
        # Step 2
        subjects = [REPORT + event.report_id, *(STUDY + uid for uid in event.study_uids)]
        filed = await self._filing.of(subjects)
        waiting = await self._take_back(entry, filed, key)
        if waiting is not None:
            return waiting
        if any(f.version > event.version and f.patient.patient_key == key for f in filed):
            return NotNeeded()  # one that was set aside, and a later version is there
        if subject is None:
            return Waiting("no-national-id")
        newest = max((r["version"] for r in await self._dossiers.versions(event.report_id)), default=event.version)
        report = await self._dossiers.report(row_of(event), studies[0], max(newest, event.version))
        return await self._file(entry, subject, studies, [report])

    # ---------------------------------------------------------------------------------------------- studies

    async def _study(self, entry: Entry, uid: str) -> Outcome:
        # Step 1
        study = await self._dossiers.study(uid)
        reports = await self._dossiers.reports_of(uid)
        filed = await self._filing.of([*(REPORT + r for r in reports), STUDY + uid])
        if study is None:
            if not await self._dossiers.exists(uid):
                return Waiting("study-unknown")
            # All of it was rejected: it is nobody's. What its reports say is for those who wrote them to take back.
            waiting = await self._take_back(entry, [f for f in filed if f.subject == STUDY + uid], "")
            return waiting or Delivered()
        complete = study.row["completed_revision"] is not None
        if not complete and not filed:
            return NotNeeded()
        key = study.person.patient_key
        if isinstance(entry.event, OF_PATIENTS) and {f.patient.patient_key for f in filed} == {key}:
            return NotNeeded()
        # Step 2
        waiting = await self._take_back(entry, filed, key)
        if waiting is not None:
            return waiting
        subject = self._subject(study)
        if subject is None:
            return Waiting("no-national-id")
        return await self._file(entry, subject, [study], await self._moved(study, filed, key))

    async def _moved(self, study: Study, filed: Sequence[Filed], key: str) -> list[Report]:
        """The reports that were filed under other patients, in the versions that the record had: they follow."""
        there = {f.subject for f in filed if f.patient.patient_key == key}
        moved: list[Report] = []
        for subject in dict.fromkeys(f.subject for f in filed if f.subject.startswith(REPORT)):
            if subject in there:
                continue
            last = max(f.version for f in filed if f.subject == subject)
            rows = await self._dossiers.versions(subject.removeprefix(REPORT))
            row = next((r for r in rows if r["version"] == last), None)
            # One that covers other studies, too, follows with the next of them that is reassigned, or waits as such.
            if row is not None and list(row["study_uids"]) == [study.uid]:
                moved.append(await self._dossiers.report(row, study, max(r["version"] for r in rows)))
        return moved

    # ---------------------------------------------------------------------------------------------- the record

    def _subject(self, study: Study) -> Subject | None:
        """The patient in the record's terms; None without a national ID."""
        person = study.person
        if not person.national_id:
            return None
        row = {**person.row, "patient_id": person.national_id} if self._create else None
        return Subject(person.patient_key, self._system, person.national_id, row)

    async def _take_back(self, entry: Entry, filed: Sequence[Filed], key: str) -> Outcome | None:
        """Step 2. What hinders it; None when nothing is under another patient than `key` any more."""
        wrong = [f for f in filed if f.patient.patient_key != key]
        for patient_key in dict.fromkeys(f.patient.patient_key for f in wrong):
            theirs = [f for f in wrong if f.patient.patient_key == patient_key]
            entries = [
                bundle.withdrawn_report(f.subject.removeprefix(REPORT), f.patient)
                if f.subject.startswith(REPORT)
                else bundle.withdrawn_study(f.subject.removeprefix(STUDY), f.patient)
                for f in theirs
            ]
            outcome = await self._transact(entry, entries, theirs[0].patient)
            if outcome not in (None, PATIENT_UNKNOWN):  # under somebody whom it does not know it has nothing
                return outcome
            faults.point("delivery.taken-back")
            await self._filing.forget(theirs)
        return None

    async def _file(
        self, entry: Entry, subject: Subject, studies: Sequence[Study], reports: Sequence[Report]
    ) -> Outcome:
        # Step 3
        filed = [Filed(STUDY + s.uid, subject, 0, "") for s in studies]
        filed += [Filed(REPORT + r.row["report_id"], subject, r.row["version"], r.row["status"]) for r in reports]
        await self._filing.note(filed)
        # Step 4
        entries = bundle.patient_entries(subject)
        for study in studies:
            entries.append(
                bundle.study_entry(
                    study.row, study.series, subject, dicomweb=self._dossiers.dicomweb, zone=self._dossiers.zone
                )
            )
        for report in reports:
            uids = [uid for uid in report.row["study_uids"] if uid in {s.uid for s in studies}]
            entries.append(bundle.report_entry(report.row, report.document, uids, subject, report.pdf))
        return await self._transact(entry, entries, subject) or Delivered()

    async def _transact(self, entry: Entry, entries: Sequence[dict[str, object]], patient: Subject) -> Outcome | None:
        """None when it is done."""
        try:
            await self._client.transact(bundle.transaction(entries), entry.id)
        except Unsuitable as answer:
            match await self._client.count(patient.search):
                case 0:
                    return PATIENT_UNKNOWN
                case 1:
                    return Refused(f"http-{answer.status}")
                case _:
                    return Waiting("patient-ambiguous")
        return None
