"""Staff as FHIR R4 Practitioner and PractitionerRole JSON: what the archive must understand of them. Pure.

No message holds a name or a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from schemas.errors import Invalid
from schemas.identity import NATIONAL_ISSUER
from schemas.people import ROLE_SYSTEM, STAFF, identifiers

IDENTIFIERS_MAX: Final = 8
SITES_MAX: Final = 256
SUBSPECIALTIES_MAX: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
"""Of people and of sites."""
_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}\Z")
_OF_THE_ARCHIVE: Final = ("id", "meta", "active")


@dataclass(frozen=True)
class Practitioner:
    """Who somebody is."""

    id: str
    """As the resource says; empty: it does not."""
    active: bool
    identifiers: tuple[tuple[str, str], ...]
    """(system, number as it is compared), a national ID first."""
    resource: dict[str, Any]
    """As it came, without what the archive sets."""


@dataclass(frozen=True)
class PractitionerRole:
    """What somebody does, and where."""

    person_id: str
    active: bool
    roles: tuple[str, ...]
    sites: tuple[str, ...]
    subspecialties: tuple[str, ...]


def practitioner(document: bytes) -> Practitioner:
    """Raises Invalid: `person-json`, `person-type`, `person-id`, `person-active`, `person-identifier`, `person-name`,
    `national-id-…`.
    """
    resource = _resource(document, "Practitioner")
    found = identifiers(resource)
    if not 1 <= len(found) <= IDENTIFIERS_MAX:
        raise Invalid(
            "person-identifier", f"identifier has 1 to {IDENTIFIERS_MAX} numbers, of {NATIONAL_ISSUER} or others"
        )
    names = _list(resource.get("name"))
    if not any(_text(n, "text").strip() or _text(n, "family").strip() for n in names):
        raise Invalid("person-name", "a Practitioner has a name: `text`, or `family` and `given`")
    kept = {k: v for k, v in resource.items() if k not in _OF_THE_ARCHIVE}
    return Practitioner(_own_id(resource), _active(resource), found, kept)


def practitioner_role(document: bytes) -> PractitionerRole:
    """Raises Invalid: `person-json`, `person-type`, `person-id`, `person-active`, `person-reference`, `person-role`,
    `person-site`, `person-specialty`.
    """
    resource = _resource(document, "PractitionerRole")
    kind, _, person_id = _text(resource.get("practitioner"), "reference").partition("/")
    if kind != "Practitioner" or not _ID.match(person_id):
        raise Invalid("person-reference", "practitioner.reference is `Practitioner/<id>`")
    own = _own_id(resource)
    if own and own != person_id:
        raise Invalid("person-id", "the id of a PractitionerRole is that of its Practitioner: there is one for each")
    roles = _codes(resource.get("code"), ROLE_SYSTEM)
    if not roles or not set(roles) <= STAFF:
        raise Invalid("person-role", f"code has one or more of {ROLE_SYSTEM}: {', '.join(sorted(STAFF))}")
    places = [resource["organization"]] if "organization" in resource else []
    sites = tuple(dict.fromkeys(_site(p) for p in (*places, *_list(resource.get("location")))))
    if len(sites) > SITES_MAX:
        raise Invalid("person-site", f"a person has at most {SITES_MAX} sites")
    subspecialties = _codes(resource.get("specialty"), "")
    if len(subspecialties) > SUBSPECIALTIES_MAX or not all(_CODE.match(c) for c in subspecialties):
        raise Invalid("person-specialty", f"specialty has at most {SUBSPECIALTIES_MAX} codes of letters and digits")
    return PractitionerRole(person_id, _active(resource), roles, sites, subspecialties)


def checked_id(text: str) -> str:
    """The id of a person, as tokens and statements have it. Raises Invalid(`person-id`)."""
    if not _ID.match(text):
        raise Invalid("person-id", "the id of a person is 1 to 64 letters, digits, `.`, `-` and `_`")
    return text


def _resource(document: bytes, kind: str) -> dict[str, Any]:
    try:
        resource = msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("person-json", f"the {kind} is no JSON object") from e
    if resource.get("resourceType") != kind:
        raise Invalid("person-type", f"resourceType is not {kind}")
    return resource


def _own_id(resource: Mapping[str, Any]) -> str:
    return checked_id(_text(resource, "id")) if "id" in resource else ""


def _active(resource: Mapping[str, Any]) -> bool:
    active = resource.get("active", True)
    if not isinstance(active, bool):
        raise Invalid("person-active", "active is true or false")
    return active


def _codes(concepts: Any, system: str) -> tuple[str, ...]:
    """Codes of the concepts that are of the system or say none; of any system if that is empty."""
    codings = (c for concept in _list(concepts) if isinstance(concept, dict) for c in _list(concept.get("coding")))
    found = (_text(c, "code") for c in codings if not system or _text(c, "system") in ("", system))
    return tuple(dict.fromkeys(code for code in found if code))


def _site(place: Any) -> str:
    """A reference to an Organization or a Location: `Location/<site>`, or the site as its identifier."""
    kind, _, id = _text(place, "reference").partition("/")
    identifier = place.get("identifier") if isinstance(place, dict) else None
    site = id if kind in ("Organization", "Location") and id else _text(identifier, "value")
    if not _ID.match(site):
        raise Invalid("person-site", "a site is `Location/<site>` or `Organization/<site>`, or an identifier's value")
    return site


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
