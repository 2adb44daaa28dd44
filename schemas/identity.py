"""Identifiers, checked when made: DICOM UIDs (PS3.5 §9), Egypt's national ID, patient keys.

Everything here is pure; the secret behind patient keys is passed in by the one process that may know it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import date

from schemas.errors import Invalid
from schemas.names import ascii_digits, fold_tokens

# ------------------------------------------------------------------------------------------------ DICOM UIDs

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*\Z")
_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]")
UID_LENGTH_MAX = 64

IMPLEMENTATION_CLASS_UID = "2.25.256271888466537081307796613996550700334"
IMPLEMENTATION_VERSION_NAME = "SIJIL_0"
"""What this implementation calls itself, in File Meta and in associations (PS3.7 §D.3.3.2)."""

MARK_LEADING_ZERO = "uid-leading-zero"
"""Mark of a UID with a component that starts with 0: forbidden by PS3.5 §9.1, found in the field, stored as it came."""


def uid_stem(uid: str) -> str:
    """A UID without its last three characters, `.` if it has no more: what those of a series mostly have in common."""
    return uid[:-3] or "."


def check_uid(value: str) -> tuple[str, ...]:
    """Marks of a UID that may be stored; raises Invalid (`uid-missing`, `uid-invalid`) for one that may not.

    Strict about length and alphabet (a UID becomes an object's name and a key), lenient about leading zeros.
    """
    if not value:
        raise Invalid("uid-missing")
    if len(value) > UID_LENGTH_MAX or not _UID.match(value):
        raise Invalid("uid-invalid")
    return (MARK_LEADING_ZERO,) if _LEADING_ZERO.search(value) else ()


# ------------------------------------------------------------------------------------------------ national ID

_CENTURY = {"2": 1900, "3": 2000}
_WEIGHTS = (2, 7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
GOVERNORATE_CODES = frozenset(
    "01 02 03 04 11 12 13 14 15 16 17 18 19 21 22 23 24 25 26 27 28 29 31 32 33 34 35 88".split()
)
"""The two digits of the governorate of birth; 88: born abroad."""


@dataclass(frozen=True)
class NationalID:
    """Egypt's national ID: 14 digits: century, birth date, governorate of birth, serial (odd: male), check digit."""

    value: str
    birth_date: date
    sex: str
    """`M` or `F`, as in DICOM's PatientSex."""
    governorate_code: str
    check_agrees: bool
    """Whether the 14th digit is what the formula in common use gives. The formula was never published officially, so a
    mismatch makes a person look and does not make the number invalid."""

    @classmethod
    def parse(cls, text: str) -> NationalID:
        """Arabic and Persian digits are read as ASCII. Raises Invalid(`national-id-…`)."""
        value = ascii_digits(text).strip()
        if len(value) != 14 or not (value.isascii() and value.isdigit()):
            raise Invalid("national-id-format")
        century = _CENTURY.get(value[0])
        if century is None:
            raise Invalid("national-id-century")
        try:
            born = date(century + int(value[1:3]), int(value[3:5]), int(value[5:7]))
        except ValueError as e:
            raise Invalid("national-id-birth-date") from e
        if value[7:9] not in GOVERNORATE_CODES:
            raise Invalid("national-id-governorate")
        sex = "M" if int(value[12]) % 2 else "F"
        return cls(value, born, sex, value[7:9], national_id_check_digit(value[:13]) == value[13])


def national_id_check_digit(first13: str) -> str:
    """The 14th digit: 11 - (weighted sum mod 11), of which the last digit counts."""
    total = sum(int(d) * w for d, w in zip(first13, _WEIGHTS, strict=True))
    return str((11 - total % 11) % 10)


# ------------------------------------------------------------------------------------------------ patient keys

PLACEHOLDER_IDS = frozenset(
    "unknown unk test tests testpatient patient anonymous anonymized anon none null na n/a nil no noid temp x "
    "unidentified emergency trauma johndoe janedoe doe مجهول مجهوله بدون اختبار تجربه طوارئ".split()
)
"""What clerks and devices write when there is no identifier. Data, compared after folding and without separators."""

PLACEHOLDER_RUNS = {"0": 1, "9": 4, "1": 5, "x": 2}
"""A character repeated at least so often, and nothing else, is a placeholder too: `0000`, `99999`, `xx`."""

NATIONAL_ISSUER = "urn:sijil:eg:national-id"

UNPROVED = "urn:sijil:eg:national-id:unproved"
"""Issuer of numbers that are said to be national IDs and are not, or not of this patient."""

KEY_NATIONAL, KEY_LOCAL, KEY_STUDY = "national-id", "local", "study"


@dataclass(frozen=True)
class PatientKey:
    """Which file a study belongs to, and why."""

    value: str
    """`k`, generation of the secret, `:` and 43 characters of base64url: a pseudonym, safe for the log."""
    basis: str
    """`national-id`, `local` (site's own number) or `study` (no identifier: a file of this study alone)."""
    proposal: str = ""
    """Why a person should look: `national-id-mismatch` (its birth date or sex is not the dataset's: perhaps a mother's
    ID for her child) or `national-id-check-digit` (perhaps a slip of the hand)."""


_PATIENT_KEY = re.compile(r"k[0-9]{1,4}:[A-Za-z0-9_-]{43}\Z")


def generation_of(key: str) -> int:
    """Generation of the secret that made a patient key."""
    return int(key[1 : key.index(":")])


def is_patient_key(value: str) -> bool:
    """Whether it has the form of a patient key."""
    return _PATIENT_KEY.match(value) is not None


def is_placeholder(patient_id: str) -> bool:
    """True for an ID that says nothing about who the patient is."""
    folded = "".join(fold_tokens(patient_id))
    if not folded or folded in PLACEHOLDER_IDS:
        return True
    return len(set(folded)) == 1 and len(folded) >= PLACEHOLDER_RUNS.get(folded[0], len(folded) + 1)


def patient_key(
    secret: bytes, generation: int = 1, *, patient_id: str, issuer: str, birth_date: str, sex: str, study_uid: str
) -> PatientKey:
    """The key that a number makes under a secret: two strangers never share a file. `generation`: of the secret.

    Whose file it is also follows from the secrets before (schemas.patient_keys), which is what processes ask.
    `issuer` is never empty: the sending site's when the dataset names none; a national ID that does not agree makes no
    national key either where the dataset names the state as its issuer. `birth_date` is DICOM's YYYYMMDD, `sex` M,
    F or O; a national ID needs both to agree, an absent one does not agree.
    """
    if is_placeholder(patient_id):
        return PatientKey(_key(secret, generation, "study", study_uid), KEY_STUDY)
    if issuer == NATIONAL_ISSUER:
        issuer = UNPROVED
    try:
        national = NationalID.parse(patient_id)
    except Invalid:
        return PatientKey(_key(secret, generation, issuer, _local(patient_id)), KEY_LOCAL)
    if birth_date == national.birth_date.strftime("%Y%m%d") and sex == national.sex:
        proposal = "" if national.check_agrees else "national-id-check-digit"
        return PatientKey(_key(secret, generation, NATIONAL_ISSUER, national.value), KEY_NATIONAL, proposal)
    return PatientKey(_key(secret, generation, issuer, _local(patient_id)), KEY_LOCAL, "national-id-mismatch")


def _local(patient_id: str) -> str:
    return ascii_digits(patient_id).strip().upper()


def _key(secret: bytes, generation: int, issuer: str, identifier: str) -> str:
    if not secret:
        raise Invalid("patient-secret-missing", "patient keys need SIJIL_PATIENT_SECRET")
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    message = f"{len(issuer)}:{issuer}{identifier}".encode()
    digest = hmac.new(secret, message, hashlib.sha256).digest()
    return f"k{generation}:" + urlsafe_b64encode(digest).rstrip(b"=").decode()


# ------------------------------------------------------------------------------------------------ derived ids

_NAMESPACE = uuid.UUID("5f2b1e0c-7a0d-5b7e-9d3c-2f6a8f5b9a10")


def derived_id(kind: str, *parts: str | int) -> str:
    """A UUIDv5 of what decided an event, so that deciding twice gives the same id."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join((kind, *map(str, parts)))))


# ------------------------------------------------------------------------------------------------ time of an id

_LAST_MS = 253_402_300_800_000
"""The year 10000 begins."""


def made_ms(id: str) -> int | None:
    """When a UUIDv7 was made (RFC 9562 §5.7), milliseconds since the epoch; None for an id of another kind."""
    stamp = int(id[:8] + id[9:13], 16)
    return stamp if id[14] == "7" and stamp < _LAST_MS else None
