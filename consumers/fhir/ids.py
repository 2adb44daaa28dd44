"""Ids of FHIR resources: 1 to 64 of letters, digits, `-` and `.` (hl7.org/fhir/R4/datatypes.html#id). Pure.

A study's id is its UID, a report's and an order's its UUID. A patient key has characters that an id may not have, so
its version and the 32 bytes of its HMAC are written in base32: `k1-` and 52 characters.
"""

from __future__ import annotations

import re
from base64 import b32decode, b32encode, urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from schemas.errors import Invalid
from schemas.identity import is_patient_key

_ID: Final = re.compile(r"(k[0-9]{1,4})-([a-z2-7]{52})\Z")


def patient_id(patient_key: str) -> str:
    """`k1:…` as an id. Raises Invalid(`patient-key`)."""
    if not is_patient_key(patient_key):
        raise Invalid("patient-key", "this is no patient key")
    version, _, digest = patient_key.partition(":")
    return f"{version}-{b32encode(urlsafe_b64decode(digest + '=')).decode().rstrip('=').lower()}"


def patient_key_of(id: str) -> str:
    """The inverse; also takes a patient key itself. Raises Invalid(`patient-id`)."""
    if is_patient_key(id):
        return id
    found = _ID.match(id)
    if not found:
        raise Invalid("patient-id", "an id of a Patient here is `k1-` and 52 characters")
    digest = b32decode(found[2].upper() + "====")
    return f"{found[1]}:{urlsafe_b64encode(digest).decode().rstrip('=')}"


def patient_reference(patient_key: str) -> str:
    """`Patient/<id>`."""
    return f"Patient/{patient_id(patient_key)}"
