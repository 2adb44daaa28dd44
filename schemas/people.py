"""Somebody on the staff as the archive keeps them: the document in S3 that a `person.*` event names. Pure.

Names and numbers stand here and never on the log (design, rule 3).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from schemas.errors import Invalid
from schemas.events import Code, PersonId, Site, Subspecialty
from schemas.identity import NATIONAL_ISSUER, NationalID
from schemas.names import ascii_digits
from schemas.roles import Role

STAFF: Final = frozenset(Role) - {Role.LOCAL, Role.PATIENT, Role.GATEWAY, Role.EHR}
"""Roles that people work in."""
STAFF_NUMBER_SYSTEM: Final = "urn:sijil:staff-number"
"""Of staff numbers that are one list for the whole archive; hospitals may use systems of their own."""
ROLE_SYSTEM: Final = "urn:sijil:role"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A version of what is known of somebody."""

    person_id: PersonId
    version: Annotated[int, msgspec.Meta(ge=1)]
    practitioner: dict[str, Any]
    """FHIR R4 Practitioner as it came, without what the archive sets (`id`, `meta`, `active`)."""
    present: bool = True
    """`active` of the Practitioner."""
    role_active: bool = True
    """`active` of the PractitionerRole."""
    roles: list[Code] = []
    sites: list[Site] = []
    subspecialties: list[Subspecialty] = []
    stated_by: str
    recorded: str

    @property
    def active(self) -> bool:
        """Whether they work here."""
        return self.present and self.role_active


_decoder = msgspec.json.Decoder(Person)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode_person(person: Person) -> bytes:
    """The document."""
    return _encoder.encode(person)


def decode_person(data: bytes) -> Person:
    """Raises Invalid(`person-document`), which quotes nothing of it."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("person-document", "the document of a person is damaged") from e


def names(person: Person) -> list[str]:
    """As they are written, one of each way."""
    listed = person.practitioner.get("name")
    return [name for n in (listed if isinstance(listed, list) else []) if (name := _name(n))]


def _name(name: Any) -> str:
    """A HumanName on one line."""
    if not isinstance(name, dict):
        return ""
    given = name.get("given")
    parts = [*(given if isinstance(given, list) else []), name.get("family")]
    return str(name.get("text") or " ".join(p for p in parts if isinstance(p, str)))


def normal(system: str, value: str) -> str:
    """A number as it is compared: Arabic digits as ASCII, case and blanks around it aside. Raises
    Invalid(`national-id-…`) for a national ID that is none.
    """
    return NationalID.parse(value).value if system == NATIONAL_ISSUER else ascii_digits(value).strip().upper()


def number_hash(secret: bytes, system: str, value: str) -> str:
    """40 hex digits that stand for a number and do not reveal it."""
    if not secret:
        raise Invalid("search-secret-missing", "ids of people need SIJIL_SEARCH_SECRET")
    message = f"person\x1f{len(system)}:{system}{normal(system, value)}".encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:40]


def identifiers(resource: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(system, number as it is compared) of a Practitioner, a national ID first. Raises Invalid(`person-identifier`,
    `national-id-…`).
    """
    listed = resource.get("identifier")
    found: list[tuple[str, str]] = []
    for identifier in listed if isinstance(listed, list) else []:
        system, value = (identifier.get(n) if isinstance(identifier, dict) else None for n in ("system", "value"))
        if not isinstance(system, str) or not isinstance(value, str) or not system.strip() or not value.strip():
            raise Invalid("person-identifier", "each identifier has a system and a value")
        found.append((system.strip(), normal(system.strip(), value)))
    return tuple(sorted(dict.fromkeys(found), key=lambda i: i[0] != NATIONAL_ISSUER))


def by_number(digest: str) -> str:
    """Prefix of the keys that name, in their last part, who may have a number (`number_hash`)."""
    return f"people/by-number/{digest}/"


def has_number(secret: bytes, person: Person, digest: str) -> bool:
    """Whether somebody has it now."""
    return any(number_hash(secret, *i) == digest for i in identifiers(person.practitioner))
