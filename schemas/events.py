"""The facts, in the past tense. Every struct here is one event type of one version, registered under its name.

Events carry facts and references, never names, report text, identifiers of people or pixels (design, rule 3). A
published struct never changes incompatibly: `schemas/json` holds what was published and a check compares. Times are
RFC 3339 in UTC: data, never order.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from schemas.errors import Invalid

Uid = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64, description="DICOM UID (PS3.5 §9)")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hex")]
Id = Annotated[
    str,
    msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", description="UUID"),
]
Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$",
        description="RFC 3339, UTC",
    ),
]
Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64, description="machine code")]
Site = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="site identifier")]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=512, description="object key in S3")]
Bucket = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="S3 bucket")]
Pseudonym = Annotated[
    str, msgspec.Meta(pattern=r"^(k[0-9]+:[A-Za-z0-9_-]{43})?$", description="patient key; empty: not known")
]
Count = Annotated[int, msgspec.Meta(ge=0)]
PersonId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="person id")]
Subspecialty = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$", description="code, of SNOMED CT for example")
]
Short = Annotated[str, msgspec.Meta(max_length=128)]
Day = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{8}$", description="YYYYMMDD")]
Door = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,16}$", description="dimse, stow, import, http")]


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of all events. Unknown fields are ignored: an older reader must live with a newer writer's additions."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]

    def key(self) -> str:
        """The Kafka key: decides the partition, so the order."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------ study.arrivals


class PackStored(Event, frozen=True, kw_only=True):
    """A pack and its manifest are durable in S3. One study may have many packs, from many gateways."""

    TYPE = "study.pack-stored.v1"
    TOPIC = "study.arrivals"
    pack_id: Id
    study_uid: Uid
    site: Site
    gateway: Short
    door: Door
    bucket: Bucket
    pack_key: Key
    pack_size: Count
    pack_sha256: Sha256
    manifest_key: Key
    manifest_size: Count
    manifest_sha256: Sha256
    instances: Annotated[int, msgspec.Meta(ge=1)]
    repeats: Count = 0
    opened: Time
    sealed: Time

    def key(self) -> str:
        return self.study_uid


class InstanceRejected(Event, frozen=True, kw_only=True):
    """An instance was refused at a door; its bytes are in the quarantine under `rejection_id`."""

    TYPE = "study.instance-rejected.v1"
    TOPIC = "study.arrivals"
    rejection_id: Id
    reason: Code
    site: Site
    gateway: Short
    door: Door
    received: Time
    size: Count
    sha256: Sha256 | None = None
    study_uid: Uid | None = None
    sop_uid: Uid | None = None
    sop_class: Uid | None = None
    calling_ae: Annotated[str, msgspec.Meta(max_length=16)] = ""

    def key(self) -> str:
        return self.study_uid or self.rejection_id


class StudyExpected(Event, frozen=True, kw_only=True):
    """Images of a study will come, or have come: an order, or what a device reports of its work, says so."""

    TYPE = "study.expected.v1"
    TOPIC = "study.arrivals"
    study_uid: Uid
    basis: Annotated[str, msgspec.Meta(pattern=r"^(order|accession|mpps|van)$")]
    """`order`: it has the UID that the order gave; `accession`: it has the order's accession number."""
    site: Site
    order_id: Id | None = None
    recorded: Time

    def key(self) -> str:
        return self.study_uid


class StudyParted(Event, frozen=True, kw_only=True):
    """A study is not that of an order after all: their accession numbers, or their patients, differ since."""

    TYPE = "study.parted.v1"
    TOPIC = "study.arrivals"
    study_uid: Uid
    site: Site
    order_id: Id
    version: Annotated[int, msgspec.Meta(ge=1, description="of the order, since which it is so")]
    recorded: Time

    def key(self) -> str:
        return self.study_uid


# ------------------------------------------------------------------------------------------------ study.lifecycle


class StudyCompleted(Event, frozen=True, kw_only=True):
    """Nothing more is expected for a study. Counts are those at exactly `as_of_offset` of study.arrivals."""

    TYPE = "study.completed.v1"
    TOPIC = "study.lifecycle"
    study_uid: Uid
    basis: Code
    revision: Annotated[int, msgspec.Meta(ge=1, description="as_of_offset + 1; a lower one than known is ignored")]
    as_of_partition: Count
    as_of_offset: Count
    packs: Count
    series: Count
    instances: Count
    bytes: Count
    first_arrival: Time
    last_arrival: Time

    def key(self) -> str:
        return self.study_uid


class StudyReopened(Event, frozen=True, kw_only=True):
    """An instance came after the study was completed."""

    TYPE = "study.reopened.v1"
    TOPIC = "study.lifecycle"
    study_uid: Uid
    revision: Annotated[int, msgspec.Meta(ge=1, description="of the completion that no longer holds")]
    pack_id: Id
    offset: Annotated[int, msgspec.Meta(ge=0, description="of the late arrival in study.arrivals")]

    def key(self) -> str:
        return self.study_uid


class DuplicateFound(Event, frozen=True, kw_only=True):
    """A later pack holds instances that the archive had, with the same content."""

    TYPE = "study.duplicate-found.v1"
    TOPIC = "study.lifecycle"
    study_uid: Uid
    pack_id: Id
    offset: Count
    comparison: Annotated[str, msgspec.Meta(pattern=r"^(sha256|canonical)$")]
    instances: Annotated[int, msgspec.Meta(ge=1)]
    sop_uids: Annotated[list[Uid], msgspec.Meta(max_length=16, description="those equal only canonically")] = []

    def key(self) -> str:
        return self.study_uid


class ConflictFound(Event, frozen=True, kw_only=True):
    """Two contents under one SOP Instance UID. The first in log order is served until a person decides."""

    TYPE = "study.conflict-found.v1"
    TOPIC = "study.lifecycle"
    study_uid: Uid
    series_uid: Uid
    sop_uid: Uid
    first_pack_id: Id
    first_offset: Count
    first_sha256: Sha256
    second_pack_id: Id
    second_offset: Count
    second_sha256: Sha256
    found: Time
    reason: Code

    def key(self) -> str:
        return self.study_uid


# ------------------------------------------------------------------------------------------------ study.corrections

Actor = Annotated[
    str, msgspec.Meta(max_length=128, description="pseudonymous: http:<address>, ae:<title>, a user's id")
]
Rejected = Annotated[
    str,
    msgspec.Meta(pattern=r"^(113001|113037|113038|113039)$", description="DCM code of a rejection (PS3.16 CID 7011)"),
]


class _Correction(Event, frozen=True, kw_only=True):
    """What a person decided of a study. Values and free text are in the document, if it has one."""

    TOPIC = "study.corrections"
    correction_id: Id
    study_uid: Uid
    actor: Actor
    reason: Code
    recorded: Time

    def key(self) -> str:
        return self.study_uid


class _Documented(_Correction, frozen=True, kw_only=True):
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256


class ConflictResolved(_Documented, frozen=True, kw_only=True):
    """Which copy of an instance is served from now on; the others stay."""

    TYPE = "study.conflict-resolved.v1"
    sop_uid: Uid
    served_sha256: Sha256
    as_of_offset: Annotated[int, msgspec.Meta(ge=0, description="of study.arrivals: later copies are not decided")]


class StudyCorrected(_Documented, frozen=True, kw_only=True):
    """Attributes of a study, series or instance have other values from now on."""

    TYPE = "study.corrected.v1"
    series_uid: Uid | None = None
    sop_uid: Uid | None = None
    tags: Annotated[list[Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{8}$")]], msgspec.Meta(max_length=32)]


class StudyReassigned(_Documented, frozen=True, kw_only=True):
    """The study is of another patient, who stands in the document."""

    TYPE = "study.reassigned.v1"


class StudyRejected(_Correction, frozen=True, kw_only=True):
    """A study, series or instances are hidden: by a document, or by a rejection note (IHE RAD TF-3 §4.66)."""

    TYPE = "study.rejected.v1"
    code: Rejected
    scope: Annotated[str, msgspec.Meta(pattern=r"^(study|series|instances)$")]
    series_uid: Uid | None = None
    instances: Count = 0
    bucket: Bucket
    document_key: Key | None = None
    document_size: Count | None = None
    document_sha256: Sha256 | None = None
    note_sop_uid: Uid | None = None
    note_offset: Annotated[int, msgspec.Meta(ge=0, description="of the note's pack in study.arrivals")] | None = None
    manifest_key: Annotated[str, msgspec.Meta(max_length=512, description="of the note's pack")] | None = None
    manifest_sha256: Sha256 | None = None


class StudyRestored(_Documented, frozen=True, kw_only=True):
    """A rejection is taken back, or all of them."""

    TYPE = "study.restored.v1"
    restores: Id | None = None


# ------------------------------------------------------------------------------------------------ patients


class PatientSeen(Event, frozen=True, kw_only=True):
    """A patient key met a study. Who it is stands in the manifest of the pack named, not here."""

    TYPE = "patient.seen.v1"
    TOPIC = "patients"
    patient_key: Pseudonym
    basis: Code
    proposal: Annotated[str, msgspec.Meta(max_length=64)] = ""
    study_uid: Uid
    site: Site
    pack_id: Id
    bucket: Bucket
    manifest_key: Key

    def key(self) -> str:
        return self.patient_key


class PatientStated(Event, frozen=True, kw_only=True):
    """A hospital says who the patient of a file is (HL7 v2 ADT). Names stand in the document."""

    TYPE = "patient.stated.v1"
    TOPIC = "patients"
    patient_key: Pseudonym
    site: Site
    stated_by: Actor
    recorded: Time
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256

    def key(self) -> str:
        return self.patient_key


class TreatingStated(Event, frozen=True, kw_only=True):
    """Somebody treats a patient, or one study of theirs is shared with somebody, from now on until `until`."""

    TYPE = "patient.treating-stated.v1"
    TOPIC = "patients"
    patient_key: Pseudonym
    person_id: PersonId
    relation: Annotated[str, msgspec.Meta(pattern=r"^(treating|referring|consulting)$")]
    study_uid: Uid | None = None
    until: Time | None = None
    stated_by: Actor
    recorded: Time

    def key(self) -> str:
        return self.patient_key


class TreatingEnded(Event, frozen=True, kw_only=True):
    """What was stated holds no more."""

    TYPE = "patient.treating-ended.v1"
    TOPIC = "patients"
    patient_key: Pseudonym
    person_id: PersonId
    study_uid: Uid | None = None
    stated_by: Actor
    recorded: Time

    def key(self) -> str:
        return self.patient_key


class _Identity(Event, frozen=True, kw_only=True):
    """What somebody decided of two files. Names never decide, a person or the site's ADT does."""

    TOPIC = "patients"
    link_id: Id
    patient_key: Pseudonym
    """The file that stays."""
    other_key: Pseudonym
    reason: Code
    """`proposal`, `administrator`, `adt-a40` …"""
    stated_by: Actor
    recorded: Time

    def key(self) -> str:
        return self.patient_key


class PatientLinked(_Identity, frozen=True, kw_only=True):
    """Two files are of one person: from now on the second is shown with the first. Nothing moves."""

    TYPE = "patient.linked.v1"


class PatientUnlinked(_Identity, frozen=True, kw_only=True):
    """What `link_id` decided holds no more: the files are as they were. `patient_key` and `other_key` are those of the
    decision.
    """

    TYPE = "patient.unlinked.v1"
    apart: bool = False
    """It was a `patient.kept-apart` that ends: the two may be proposed again."""


class PatientKeptApart(_Identity, frozen=True, kw_only=True):
    """Two files that look alike are of two people: they are not proposed again. `patient_key` is the lesser one."""

    TYPE = "patient.kept-apart.v1"


class PatientAliased(Event, frozen=True, kw_only=True):
    """A number that made `patient_key` makes `alias` under a newer secret: it finds the same file, for ever."""

    TYPE = "patient.aliased.v1"
    TOPIC = "patients"
    patient_key: Pseudonym
    alias: Pseudonym

    def key(self) -> str:
        return self.patient_key


# ------------------------------------------------------------------------------------------------ people


class _Person(Event, frozen=True, kw_only=True):
    """What holds of somebody on the staff from now on, whole. Names and numbers are in the document."""

    TOPIC = "people"
    person_id: PersonId
    version: Annotated[int, msgspec.Meta(ge=1)]
    active: bool
    roles: Annotated[list[Code], msgspec.Meta(max_length=16)]
    """Values of schemas.roles.Role; none: not stated."""
    sites: Annotated[list[Site], msgspec.Meta(max_length=256)]
    subspecialties: Annotated[list[Subspecialty], msgspec.Meta(max_length=32)]
    stated_by: Actor
    recorded: Time
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256

    def key(self) -> str:
        return self.person_id


class PersonRegistered(_Person, frozen=True, kw_only=True):
    """Somebody is known from now on."""

    TYPE = "person.registered.v1"


class PersonChanged(_Person, frozen=True, kw_only=True):
    """Something of somebody is another."""

    TYPE = "person.changed.v1"


class PersonLeft(_Person, frozen=True, kw_only=True):
    """Somebody works here no more: no token in a staff role lets them in."""

    TYPE = "person.left.v1"


# ------------------------------------------------------------------------------------------------ sites


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the AE table. A certificate is named by its SHA-256; nothing of it is secret."""

    host: Annotated[str, msgspec.Meta(max_length=255, description="address, name or network")]
    port: Annotated[int, msgspec.Meta(ge=0, le=65535, description="0: nothing is sent to it")]
    site: Short = ""
    role: Code
    issuer: Short = ""
    certificate: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$", description="SHA-256; empty: any")] = ""
    tls: bool = False


class _Device(Event, frozen=True, kw_only=True):
    """What a person decided of a DICOM application entity. On the log before the AE table holds it."""

    TOPIC = "sites"
    ae_title: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    actor: Actor
    recorded: Time

    def key(self) -> str:
        return self.ae_title


class DeviceRegistered(_Device, frozen=True, kw_only=True):
    """It may call from now on, and be sent to."""

    TYPE = "device.registered.v1"
    after: Device


class DeviceChanged(_Device, frozen=True, kw_only=True):
    """Something of it is another."""

    TYPE = "device.changed.v1"
    before: Device
    after: Device


class DeviceRemoved(_Device, frozen=True, kw_only=True):
    """It may call no more."""

    TYPE = "device.removed.v1"
    before: Device


class _Endpoint(Event, frozen=True, kw_only=True):
    """What an administrator decided of where notifications may go. On the log before it holds."""

    TOPIC = "sites"
    prefix: Annotated[str, msgspec.Meta(min_length=1, max_length=2000, description="what addresses begin with")]
    actor: Actor
    recorded: Time

    def key(self) -> str:
        return self.prefix


class EndpointApproved(_Endpoint, frozen=True, kw_only=True):
    """Subscriptions may name endpoints below it."""

    TYPE = "endpoint.approved.v1"


class EndpointWithdrawn(_Endpoint, frozen=True, kw_only=True):
    """They may no longer: nothing goes there any more."""

    TYPE = "endpoint.withdrawn.v1"


# ------------------------------------------------------------------------------------------------ orders: steps


class _Step(Event, frozen=True, kw_only=True):
    """A performed procedure step (MPPS, PS3.4 Annex F), keyed by its own UID: a device does not know order ids. Whose
    it is, its accession numbers and what it lists are in the document.
    """

    TOPIC = "orders"
    step_uid: Uid
    version: Annotated[int, msgspec.Meta(ge=1)]
    study_uids: Annotated[list[Uid], msgspec.Meta(min_length=1, max_length=16)]
    site: Site
    station_ae: Annotated[str, msgspec.Meta(max_length=16)]
    modality: Annotated[str, msgspec.Meta(max_length=16)]
    recorded: Time
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256

    def key(self) -> str:
        return self.step_uid


class StepStarted(_Step, frozen=True, kw_only=True):
    """A device has begun an examination."""

    TYPE = "order.step-started.v1"


class StepEnded(_Step, frozen=True, kw_only=True):
    """A device has ended an examination, and says which instances it made."""

    TYPE = "order.step-ended.v1"
    outcome: Annotated[str, msgspec.Meta(pattern=r"^(completed|discontinued)$")]
    series: Count
    instances: Annotated[int, msgspec.Meta(ge=0, description="listed; 0 where the device lists none")]


# ------------------------------------------------------------------------------------------------ archive


class PackArchived(Event, frozen=True, kw_only=True):
    """A locked copy of a pack was written and its SHA-256 verified there."""

    TYPE = "pack.archived.v1"
    TOPIC = "archive"
    pack_id: Id
    study_uid: Uid
    bucket: Bucket
    pack_key: Key
    version_id: Short
    size: Count
    sha256: Sha256
    manifest_key: Key
    manifest_version_id: Short
    manifest_sha256: Sha256
    retain_until: Time
    policy: Code

    def key(self) -> str:
        return self.pack_id


# ------------------------------------------------------------------------------------------------ orders


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whom a report names, and as what."""

    person_id: PersonId
    relation: Annotated[str, msgspec.Meta(pattern=r"^(referring|reporting)$")]


class _Order(Event, frozen=True, kw_only=True):
    """A version of an order. Patient, accession number and what is asked are the S3 document named."""

    TOPIC = "orders"
    order_id: Id
    version: Annotated[int, msgspec.Meta(ge=1)]
    status: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^(draft|active|on-hold|revoked|completed|entered-in-error)$",
            description="FHIR R4 ServiceRequest.status",
        ),
    ]
    priority: Annotated[str, msgspec.Meta(pattern=r"^(routine|urgent|asap|stat)$", description="FHIR R4 priority")]
    site: Site
    study_uid: Uid
    modality: Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9_]{0,16}$", description="DICOM Modality; empty: any")]
    day: Day
    """Of the scheduled start, else of the order, where the site is."""
    day_before: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{8})?$", description="of the version before; empty: none")]
    scheduled: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{14})?$", description="start, where the site is")] = ""
    people: Annotated[list[Named], msgspec.Meta(max_length=4)] = []
    """Who refers the patient."""
    actor: Actor
    recorded: Time
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256
    previous_key: Annotated[str, msgspec.Meta(max_length=512, description="document of the version before")] = ""

    def key(self) -> str:
        return self.order_id


class OrderPlaced(_Order, frozen=True, kw_only=True):
    """Something is to be done."""

    TYPE = "order.placed.v1"


class OrderChanged(_Order, frozen=True, kw_only=True):
    """Something of an order is another."""

    TYPE = "order.changed.v1"


class OrderCancelled(_Order, frozen=True, kw_only=True):
    """It is not to be done, or should never have been ordered."""

    TYPE = "order.cancelled.v1"
    reason: Code


# ------------------------------------------------------------------------------------------------ reports


class ReportIssued(Event, frozen=True, kw_only=True):
    """A version of a report. Its text is the S3 document named."""

    TYPE = "report.issued.v1"
    TOPIC = "reports"
    report_id: Id
    version: Annotated[int, msgspec.Meta(ge=1)]
    status: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^(registered|partial|preliminary|final|amended|corrected|appended|cancelled|entered-in-error)$",
            description="FHIR R4 DiagnosticReport.status",
        ),
    ]
    study_uids: Annotated[list[Uid], msgspec.Meta(min_length=1, max_length=16)]
    site: Site
    issued: Time
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256
    people: Annotated[list[Named], msgspec.Meta(max_length=32)] = []
    """Who referred the patient and who reports (Practitioner/<person id> in the document): whose patient this is."""
    author: Actor = ""
    """Who wrote the report first, a resident for example; empty: not said."""
    signed_by: Actor = ""
    """Who answers for this version; empty: nobody has signed it."""
    signed: Time | None = None
    """When. What was signed is the document: `document_sha256`."""
    critical: bool = False
    """Whether it tells of something that cannot wait."""
    source_sop_uid: Uid | None = None
    """The SR or encapsulated PDF that this version was made from."""

    def key(self) -> str:
        return self.report_id


class _Critical(Event, frozen=True, kw_only=True):
    """Of a critical result: the task that somebody reads back what a version of a report says."""

    TOPIC = "reports"
    critical_id: Id
    report_id: Id
    version: Annotated[int, msgspec.Meta(ge=1, description="of the report, with which it became critical")]
    study_uids: Annotated[list[Uid], msgspec.Meta(min_length=1, max_length=16)]
    site: Site

    def key(self) -> str:
        return self.report_id


class CriticalRaised(_Critical, frozen=True, kw_only=True):
    """Somebody must be told, and read back what they were told."""

    TYPE = "report.critical-raised.v1"
    raised_by: Actor
    raised: Time
    contacts: Annotated[list[PersonId], msgspec.Meta(max_length=16)]
    """Who is to be told, one after the other; none: nobody was named, which is shown as overdue at once."""
    within_s: Annotated[int, msgspec.Meta(ge=1, description="how long each of them has")]
    due: Time


class CriticalEscalated(_Critical, frozen=True, kw_only=True):
    """Whose turn it was has not read it back in time: it is the next one's turn."""

    TYPE = "report.critical-escalated.v1"
    level: Annotated[int, msgspec.Meta(ge=1, description="place in contacts; the first is 0")]
    contact: PersonId
    due: Time


class CriticalAcknowledged(_Critical, frozen=True, kw_only=True):
    """A clinician has read it back. What they said is in the document."""

    TYPE = "report.critical-acknowledged.v1"
    clinician: PersonId
    recorded_by: Actor
    channel: Annotated[str, msgspec.Meta(pattern=r"^(page|phone|in-person)$")]
    acknowledged: Time
    bucket: Bucket
    document_key: Key
    document_size: Count
    document_sha256: Sha256


# ------------------------------------------------------------------------------------------------ reading


class ReadingClaimed(Event, frozen=True, kw_only=True):
    """Somebody has opened a study to report it. A notice to others, no lock: the last claim in log order holds."""

    TYPE = "reading.claimed.v1"
    TOPIC = "reading"
    study_uid: Uid
    actor: Actor
    recorded: Time

    def key(self) -> str:
        return self.study_uid


class ReadingReleased(Event, frozen=True, kw_only=True):
    """Who had claimed a study reports it no longer: it was given back, or its report is signed."""

    TYPE = "reading.released.v1"
    TOPIC = "reading"
    study_uid: Uid
    actor: Actor
    reason: Annotated[str, msgspec.Meta(pattern=r"^(given-back|signed)$")]
    recorded: Time

    def key(self) -> str:
        return self.study_uid


# ------------------------------------------------------------------------------------------------ accesses


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One study that an answer showed, and whose it is."""

    study_uid: Uid
    patient_key: Pseudonym = ""


class _Access(Event, frozen=True, kw_only=True):
    TOPIC = "accesses"
    access_id: Id
    actor: Actor
    role: Code
    purpose: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2,16}$", description="HL7 v3 PurposeOfUse")]
    action: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
    occurred: Time
    via: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{0,16}$", description="http, dimse, page; empty: not said")] = ""
    address: Annotated[str, msgspec.Meta(max_length=128, description="network address it was asked from")] = ""
    destination: Annotated[str, msgspec.Meta(max_length=64, description="AE title it was sent to by C-MOVE")] = ""


class AccessGranted(_Access, frozen=True, kw_only=True):
    """Patient data is about to leave. Durable before the first byte of the answer (design, rule 7)."""

    TYPE = "access.granted.v1"
    study_uid: Uid | None = None
    search: dict[str, list[Annotated[str, msgspec.Meta(max_length=64)]]] = {}
    """Attribute names with HMACs of what was searched for."""
    shown: Annotated[list[Shown], msgspec.Meta(max_length=128)] = []
    shown_count: Count = 0
    shown_list: Annotated[str, msgspec.Meta(max_length=512, description="S3 key of the list when above 128")] = ""
    shown_list_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    patient_key: Pseudonym = ""
    """Whose file was asked for, also where no study of it was shown."""
    window_s: Count = 0

    def key(self) -> str:
        return self.study_uid or self.access_id


class AccessUsed(_Access, frozen=True, kw_only=True):
    """The window of an access.granted closed: how often it was used, and how that ended."""

    TYPE = "access.used.v1"
    study_uid: Uid
    patient_key: Pseudonym = ""
    uses: Annotated[int, msgspec.Meta(ge=1)]
    bytes: Count = 0
    cut_short: Count = 0
    """Of the uses: answers that ended before their end, because the client had gone or a part of the archive failed."""
    recovered: bool = False
    """The process ended before the window did; the next one found its count. `bytes` is a lower bound then."""
    last_used: Time

    def key(self) -> str:
        return self.study_uid


class AccessDenied(_Access, frozen=True, kw_only=True):
    """Somebody asked and was refused."""

    TYPE = "access.denied.v1"
    reason: Code
    study_uid: Uid | None = None
    patient_key: Pseudonym = ""

    def key(self) -> str:
        return self.study_uid or self.access_id


class AccessEmergency(_Access, frozen=True, kw_only=True):
    """Somebody without a relation to the patient stated a reason and was let in until `until` (break-glass)."""

    TYPE = "access.emergency.v1"
    reason: Code
    study_uid: Uid | None = None
    patient_key: Pseudonym = ""
    until: Time
    bucket: Bucket
    document_key: Key
    """The reason in words: written by a person about a patient, so it is not on the log."""
    document_size: Count
    document_sha256: Sha256

    def key(self) -> str:
        return self.study_uid or self.access_id


class AccessInvited(_Access, frozen=True, kw_only=True):
    """A patient can open their own file by a link until then, with a second secret. The access is the invitation."""

    TYPE = "access.invited.v1"
    patient_key: Pseudonym
    order_id: Id | None = None
    factor: Annotated[str, msgspec.Meta(pattern=r"^(pin|otp)$", description="the slip's PIN, a code to the phone")]
    once: bool
    """The link is spent when it has been opened."""
    until: Time

    def key(self) -> str:
        return self.access_id


class AccessUninvited(_Access, frozen=True, kw_only=True):
    """Such a link opens nothing any more, and whoever opened it is let in no longer."""

    TYPE = "access.uninvited.v1"
    invitation_id: Id
    patient_key: Pseudonym

    def key(self) -> str:
        return self.invitation_id


# ------------------------------------------------------------------------------------------------ deliveries


class _Attempt(Event, frozen=True, kw_only=True):
    """An attempt to hand something to somebody has ended. What was handed over stands nowhere on the log."""

    delivery_id: Id
    destination: Code
    attempt: Annotated[int, msgspec.Meta(ge=1)]
    occurred: Time


class _ReportAttempt(_Attempt, frozen=True, kw_only=True):
    TOPIC = "reports"
    report_id: Id
    version: Annotated[int, msgspec.Meta(ge=1)]

    def key(self) -> str:
        return self.report_id


class _StudyAttempt(_Attempt, frozen=True, kw_only=True):
    TOPIC = "study.lifecycle"
    study_uid: Uid

    def key(self) -> str:
        return self.study_uid


class ReportDelivered(_ReportAttempt, frozen=True, kw_only=True):
    """A destination has a version of a report: it has said so."""

    TYPE = "report.delivered.v1"


class ReportDeliveryFailed(_ReportAttempt, frozen=True, kw_only=True):
    """A destination has not taken a version of a report."""

    TYPE = "report.delivery-failed.v1"
    reason: Code
    will_retry: Annotated[bool, msgspec.Meta(description="false: it waits for a person")]


class StudyDelivered(_StudyAttempt, frozen=True, kw_only=True):
    """A destination knows of a study as it is: it has said so."""

    TYPE = "study.delivered.v1"


class StudyDeliveryFailed(_StudyAttempt, frozen=True, kw_only=True):
    """A destination has not taken what it was told of a study."""

    TYPE = "study.delivery-failed.v1"
    reason: Code
    will_retry: Annotated[bool, msgspec.Meta(description="false: it waits for a person")]


# ------------------------------------------------------------------------------------------------ dead letters


class DeadLetter(Event, frozen=True, kw_only=True):
    """A record that could not be processed. Its bytes are the encrypted object named."""

    TYPE = "dead-letter.v1"
    TOPIC = "dead-letters"
    reason: Code
    origin_topic: Short
    origin_partition: Count
    origin_offset: Count
    origin_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    payload_key: Key
    payload_sha256: Sha256
    consumer: Short

    def key(self) -> str:
        return f"{self.origin_topic}/{self.origin_partition}/{self.origin_offset}"


EVENTS: tuple[type[Event], ...] = (
    PackStored,
    InstanceRejected,
    StudyExpected,
    StudyParted,
    StudyCompleted,
    StudyReopened,
    DuplicateFound,
    ConflictFound,
    ConflictResolved,
    StudyCorrected,
    StudyReassigned,
    StudyRejected,
    StudyRestored,
    PatientSeen,
    PatientStated,
    TreatingStated,
    TreatingEnded,
    PatientLinked,
    PatientUnlinked,
    PatientAliased,
    PatientKeptApart,
    PersonRegistered,
    PersonChanged,
    PersonLeft,
    DeviceRegistered,
    DeviceChanged,
    DeviceRemoved,
    EndpointApproved,
    EndpointWithdrawn,
    StepStarted,
    StepEnded,
    PackArchived,
    OrderPlaced,
    OrderChanged,
    OrderCancelled,
    ReportIssued,
    CriticalRaised,
    CriticalEscalated,
    CriticalAcknowledged,
    ReadingClaimed,
    ReadingReleased,
    AccessGranted,
    AccessUsed,
    AccessDenied,
    AccessEmergency,
    ReportDelivered,
    ReportDeliveryFailed,
    StudyDelivered,
    StudyDeliveryFailed,
    AccessInvited,
    AccessUninvited,
    DeadLetter,
)
BY_TYPE: dict[str, type[Event]] = {e.TYPE: e for e in EVENTS}

_encoder = msgspec.json.Encoder()
_decoders: dict[str, msgspec.json.Decoder[Any]] = {t: msgspec.json.Decoder(e) for t, e in BY_TYPE.items()}


class UnknownEventType(Invalid):
    """A type this build does not know: a newer producer's fact that an older reader must not skip."""

    def __init__(self, event_type: str) -> None:
        super().__init__("unknown-event-type", "event type is not known to this build")
        self.event_type = event_type


def encode_payload(event: Event) -> bytes:
    """The event as JSON."""
    return _encoder.encode(event)


def decode_payload(event_type: str, payload: bytes) -> Event:
    """Decode and validate. Raises UnknownEventType, or Invalid(`schema-violation`) that quotes no value."""
    decoder = _decoders.get(event_type)
    if decoder is None:
        raise UnknownEventType(event_type)
    try:
        event: Event = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        # msgspec's message names the path and the rule, but a bad enum quotes the value: only the path is kept.
        raise Invalid("schema-violation", f"payload breaks {event_type} at {_path(str(e))}") from e
    return event


def _path(message: str) -> str:
    _, found, path = message.rpartition(" - at `")
    return path.rstrip("`") if found else "$"
