"""Who may do what: roles, permissions, scopes, and the one table that joins them. Pure.

README's table of roles is made from TABLE (`tests/tidy/test_roles.py`), and so is the test of every role at every
door. A role that a row does not name may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What somebody is to the archive. A person with several roles acts in one at a time."""

    TECHNICIAN = "technician"
    CLERK = "clerk"
    RADIOLOGIST = "radiologist"
    RESIDENT = "resident"
    DOCTOR = "doctor"
    PATIENT = "patient"
    ADMINISTRATOR = "administrator"
    OFFICER = "officer"
    ANALYST = "analyst"
    MINISTRY = "ministry"
    GATEWAY = "gateway"
    EHR = "ehr"
    OPERATOR = "operator"
    LOCAL = "local"


ROLES: Mapping[Role, str] = {
    Role.TECHNICIAN: "makes images at a site, and sees that they arrived",
    Role.CLERK: "registers patients and places orders at a site",
    Role.RADIOLOGIST: "reads and reports the studies of the sites they work for",
    Role.RESIDENT: "learns to read: writes reports that a radiologist signs",
    Role.DOCTOR: "refers and treats: sees their own patients, and others in an emergency",
    Role.PATIENT: "sees their own file, and who looked at it",
    Role.ADMINISTRATOR: "PACS administrator: keeps the archive's content right",
    Role.OFFICER: "data protection officer: sees who saw what, and no image",
    Role.ANALYST: "counts and follows by pseudonyms",
    Role.MINISTRY: "sees aggregates",
    Role.GATEWAY: "a service that sends a site's studies, orders and reports (signed where they come from)",
    Role.EHR: "the health record that shows and files reports and images",
    Role.OPERATOR: "runs the machines, and sees no patient data",
    Role.LOCAL: "whoever calls from this machine, where the operator allows it (SIJIL_LOOPBACK_ROLE)",
}
"""Role → what it is for."""


class Permission(StrEnum):
    """A kind of thing that can be done at a door."""

    STUDY_SEARCH = "study.search"
    STUDY_READ = "study.read"
    STUDY_ORIGINAL = "study.original"
    STUDY_STORE = "study.store"
    STUDY_CORRECT = "study.correct"
    STUDY_SHARE = "study.share"
    REPORT_READ = "report.read"
    REPORT_WRITE = "report.write"
    REPORT_SIGN = "report.sign"
    CRITICAL_ACKNOWLEDGE = "critical.acknowledge"
    TIMES_READ = "times.read"
    REPORT_DRAFT = "report.draft"
    PATIENT_FILE = "patient.file"
    PATIENT_LINK = "patient.link"
    PATIENT_INVITE = "patient.invite"
    TREATING_WRITE = "treating.write"
    ACCESS_READ_OWN = "access.read-own"
    ACCESS_READ_STUDY = "access.read-study"
    ACCESS_READ_ANY = "access.read-any"
    ACCESS_EMERGENCY = "access.emergency"
    CORRECTIONS_READ = "corrections.read"
    CONFLICTS_READ = "conflicts.read"
    QUARANTINE_READ = "quarantine.read"
    CHANGES_READ = "changes.read"
    PEOPLE_READ = "people.read"
    PEOPLE_WRITE = "people.write"
    AE_READ = "ae.read"
    AE_WRITE = "ae.write"
    ORDER_READ = "order.read"
    ORDER_WRITE = "order.write"
    METRICS_READ = "metrics.read"
    DEAD_LETTERS_READ = "dead-letters.read"
    RESULT_READ = "results.read"
    RESULT_WRITE = "results.write"
    DELIVERY_READ = "delivery.read"
    DELIVERY_WRITE = "delivery.write"
    SUBSCRIPTION_READ = "subscription.read"
    SUBSCRIPTION_WRITE = "subscription.write"
    SUBSCRIPTION_APPROVE = "subscription.approve"
    SELF_READ = "self.read"


PERMISSIONS: Mapping[Permission, str] = {
    Permission.STUDY_SEARCH: "search for studies (QIDO-RS, C-FIND)",
    Permission.STUDY_READ: "see a study: status, metadata, images (WADO-RS, C-MOVE, C-GET)",
    Permission.STUDY_ORIGINAL: "the stored bytes, without corrections",
    Permission.STUDY_STORE: "send instances (STOW-RS, import), ask for storage commitment",
    Permission.STUDY_CORRECT: "correct, reassign, reject, restore, resolve",
    Permission.STUDY_SHARE: "show a study to somebody for a time",
    Permission.REPORT_READ: "read reports",
    Permission.REPORT_WRITE: "write reports",
    Permission.REPORT_SIGN: "sign reports: without a signature none is final",
    Permission.CRITICAL_ACKNOWLEDGE: "read back a critical result, or record that somebody did",
    Permission.TIMES_READ: "how long things take, without any patient",
    Permission.REPORT_DRAFT: "what waits for a report; claim it, keep drafts",
    Permission.PATIENT_FILE: "a patient's file",
    Permission.PATIENT_INVITE: "give a patient a link to their own file, and take it back",
    Permission.PATIENT_LINK: "join the files of one person, and take that back",
    Permission.TREATING_WRITE: "state who treats a patient",
    Permission.ACCESS_READ_OWN: "who looked at a patient's file",
    Permission.ACCESS_READ_STUDY: "who looked at a study",
    Permission.ACCESS_READ_ANY: "who looked at what: by actor, denied, emergency",
    Permission.ACCESS_EMERGENCY: "open a file in an emergency, stating the reason",
    Permission.CORRECTIONS_READ: "what people corrected",
    Permission.CONFLICTS_READ: "copies that contradict each other, proposals of identity",
    Permission.QUARANTINE_READ: "what the doors refused",
    Permission.CHANGES_READ: "the change feed (UIDs only)",
    Permission.PEOPLE_READ: "staff, their roles and sites",
    Permission.PEOPLE_WRITE: "register, change and end staff",
    Permission.AE_READ: "the AE table",
    Permission.AE_WRITE: "change the AE table",
    Permission.ORDER_READ: "see orders, modality worklist",
    Permission.ORDER_WRITE: "place and change orders",
    Permission.METRICS_READ: "figures of the machines",
    Permission.DEAD_LETTERS_READ: "events that could not be processed",
    Permission.RESULT_READ: "results that wait for their study",
    Permission.RESULT_WRITE: "say which study they are of",
    Permission.DELIVERY_READ: "what destinations have not got yet",
    Permission.DELIVERY_WRITE: "deliver again",
    Permission.SUBSCRIPTION_READ: "see subscriptions (FHIR)",
    Permission.SUBSCRIPTION_WRITE: "subscribe, change and end subscriptions (FHIR)",
    Permission.SUBSCRIPTION_APPROVE: "say where notifications may go",
    Permission.SELF_READ: "who one is here",
}
"""Permission → what it allows."""


class Scope(StrEnum):
    """About what a permission is. Every scope but `none` is widened by what was shared, stated or opened in an
    emergency for this person (`consumers.api.scope`).
    """

    NONE = "none"
    OWN_SITE = "own-site"
    """Studies that a site of theirs has sent."""
    OWN_PATIENTS = "own-patients"
    """Patients whom they refer or treat, as orders, reports and statements say."""
    SELF = "self"
    """The patient they are; of subscriptions their own."""
    PSEUDONYMS = "pseudonyms"
    """UIDs and patient keys, no name and no image."""
    AGGREGATES = "aggregates"
    """Counts."""
    WHOLE = "whole"
    """The whole archive."""


_P, _S = Permission, Scope
_EVERYONE = {_P.SELF_READ: _S.SELF}

TABLE: Mapping[Role, Mapping[Permission, Scope]] = {
    Role.TECHNICIAN: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.OWN_SITE,
        _P.STUDY_READ: _S.OWN_SITE,
        _P.STUDY_STORE: _S.OWN_SITE,
        _P.STUDY_CORRECT: _S.OWN_SITE,
        _P.CORRECTIONS_READ: _S.OWN_SITE,
        _P.QUARANTINE_READ: _S.OWN_SITE,
        _P.ORDER_READ: _S.OWN_SITE,
        _P.ORDER_WRITE: _S.OWN_SITE,
        _P.PATIENT_INVITE: _S.OWN_SITE,
    },
    Role.CLERK: {
        **_EVERYONE,
        _P.ORDER_READ: _S.OWN_SITE,
        _P.ORDER_WRITE: _S.OWN_SITE,
        _P.PATIENT_INVITE: _S.OWN_SITE,
    },
    Role.RADIOLOGIST: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.OWN_SITE,
        _P.STUDY_READ: _S.OWN_SITE,
        _P.STUDY_STORE: _S.OWN_SITE,
        _P.STUDY_SHARE: _S.OWN_SITE,
        _P.REPORT_READ: _S.OWN_SITE,
        _P.REPORT_WRITE: _S.OWN_SITE,
        _P.REPORT_SIGN: _S.OWN_SITE,
        _P.CRITICAL_ACKNOWLEDGE: _S.OWN_SITE,
        _P.TIMES_READ: _S.OWN_SITE,
        _P.REPORT_DRAFT: _S.OWN_SITE,
        _P.PATIENT_FILE: _S.OWN_SITE,
        _P.TREATING_WRITE: _S.OWN_SITE,
        _P.CORRECTIONS_READ: _S.OWN_SITE,
        _P.ORDER_READ: _S.OWN_SITE,
        _P.ACCESS_EMERGENCY: _S.WHOLE,
    },
    Role.RESIDENT: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.OWN_SITE,
        _P.STUDY_READ: _S.OWN_SITE,
        _P.REPORT_READ: _S.OWN_SITE,
        _P.REPORT_WRITE: _S.OWN_SITE,
        _P.REPORT_DRAFT: _S.OWN_SITE,
        _P.CRITICAL_ACKNOWLEDGE: _S.OWN_SITE,
        _P.PATIENT_FILE: _S.OWN_SITE,
        _P.CORRECTIONS_READ: _S.OWN_SITE,
        _P.ORDER_READ: _S.OWN_SITE,
        _P.ACCESS_EMERGENCY: _S.WHOLE,
    },
    Role.DOCTOR: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.OWN_PATIENTS,
        _P.STUDY_READ: _S.OWN_PATIENTS,
        _P.STUDY_SHARE: _S.OWN_PATIENTS,
        _P.REPORT_READ: _S.OWN_PATIENTS,
        _P.CRITICAL_ACKNOWLEDGE: _S.OWN_PATIENTS,
        _P.PATIENT_FILE: _S.OWN_PATIENTS,
        _P.ORDER_READ: _S.OWN_PATIENTS,
        _P.ORDER_WRITE: _S.OWN_PATIENTS,
        _P.ACCESS_EMERGENCY: _S.WHOLE,
    },
    Role.PATIENT: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.SELF,
        _P.STUDY_READ: _S.SELF,
        _P.REPORT_READ: _S.SELF,
        _P.PATIENT_FILE: _S.SELF,
        _P.ORDER_READ: _S.SELF,
        _P.ACCESS_READ_OWN: _S.SELF,
        _P.ACCESS_READ_STUDY: _S.SELF,
    },
    Role.ADMINISTRATOR: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.WHOLE,
        _P.STUDY_READ: _S.WHOLE,
        _P.STUDY_ORIGINAL: _S.WHOLE,
        _P.STUDY_STORE: _S.WHOLE,
        _P.STUDY_CORRECT: _S.WHOLE,
        _P.REPORT_READ: _S.WHOLE,
        _P.TIMES_READ: _S.WHOLE,
        _P.ORDER_READ: _S.WHOLE,
        _P.PATIENT_FILE: _S.WHOLE,
        _P.PATIENT_LINK: _S.WHOLE,
        _P.TREATING_WRITE: _S.WHOLE,
        _P.ACCESS_READ_STUDY: _S.WHOLE,
        _P.CORRECTIONS_READ: _S.WHOLE,
        _P.CONFLICTS_READ: _S.WHOLE,
        _P.QUARANTINE_READ: _S.WHOLE,
        _P.CHANGES_READ: _S.WHOLE,
        _P.PEOPLE_READ: _S.WHOLE,
        _P.PEOPLE_WRITE: _S.WHOLE,
        _P.AE_READ: _S.WHOLE,
        _P.AE_WRITE: _S.WHOLE,
        _P.PATIENT_INVITE: _S.WHOLE,
        _P.RESULT_READ: _S.WHOLE,
        _P.RESULT_WRITE: _S.WHOLE,
        _P.DELIVERY_READ: _S.WHOLE,
        _P.DELIVERY_WRITE: _S.WHOLE,
        _P.SUBSCRIPTION_READ: _S.WHOLE,
        _P.SUBSCRIPTION_WRITE: _S.WHOLE,
        _P.SUBSCRIPTION_APPROVE: _S.WHOLE,
    },
    Role.OFFICER: {
        **_EVERYONE,
        _P.ACCESS_READ_OWN: _S.WHOLE,
        _P.ACCESS_READ_STUDY: _S.WHOLE,
        _P.ACCESS_READ_ANY: _S.WHOLE,
        _P.CORRECTIONS_READ: _S.WHOLE,
        _P.PEOPLE_READ: _S.WHOLE,
        _P.AE_READ: _S.WHOLE,
    },
    Role.ANALYST: {**_EVERYONE, _P.CHANGES_READ: _S.PSEUDONYMS},
    Role.MINISTRY: {**_EVERYONE, _P.TIMES_READ: _S.AGGREGATES},
    Role.GATEWAY: {
        **_EVERYONE,
        _P.STUDY_STORE: _S.OWN_SITE,
        _P.REPORT_WRITE: _S.OWN_SITE,
        _P.REPORT_SIGN: _S.OWN_SITE,
        _P.ORDER_WRITE: _S.OWN_SITE,
    },
    Role.EHR: {
        **_EVERYONE,
        _P.STUDY_SEARCH: _S.WHOLE,
        _P.STUDY_READ: _S.WHOLE,
        _P.REPORT_READ: _S.WHOLE,
        _P.PATIENT_FILE: _S.WHOLE,
        _P.TREATING_WRITE: _S.WHOLE,
        _P.ORDER_READ: _S.WHOLE,
        _P.ORDER_WRITE: _S.WHOLE,
        _P.CHANGES_READ: _S.WHOLE,
        _P.SUBSCRIPTION_READ: _S.SELF,
        _P.SUBSCRIPTION_WRITE: _S.SELF,
    },
    Role.OPERATOR: {
        **_EVERYONE,
        _P.METRICS_READ: _S.WHOLE,
        _P.DEAD_LETTERS_READ: _S.WHOLE,
        _P.DELIVERY_READ: _S.WHOLE,
        _P.DELIVERY_WRITE: _S.WHOLE,
    },
    Role.LOCAL: {p: _S.WHOLE for p in _P},
}
"""Role → permission → scope; what is not there is not allowed."""

DEFAULT_PURPOSE: Mapping[Role, str] = {
    Role.TECHNICIAN: "TREAT",
    Role.CLERK: "TREAT",
    Role.RADIOLOGIST: "TREAT",
    Role.RESIDENT: "TREAT",
    Role.DOCTOR: "TREAT",
    Role.PATIENT: "PATRQT",
    Role.ADMINISTRATOR: "HSYSADMIN",
    Role.OFFICER: "HCOMPL",
    Role.ANALYST: "HQUALIMP",
    Role.MINISTRY: "PUBHLTH",
    Role.GATEWAY: "TREAT",
    Role.EHR: "TREAT",
    Role.OPERATOR: "HSYSADMIN",
    Role.LOCAL: "TREAT",
}
"""Role → HL7 v3 PurposeOfUse when neither the request nor the token states one."""


def may_break_glass(role: Role) -> bool:
    """Whether somebody in this role can state an emergency."""
    return scope_of(role, Permission.ACCESS_EMERGENCY) is not Scope.NONE


def scope_of(role: Role, permission: Permission) -> Scope:
    """What the table says; NONE where it says nothing."""
    return TABLE[role].get(permission, Scope.NONE)
