"""person.* → staff as they are now, who is of a site, and who has which name."""

from __future__ import annotations

from schemas.events import PersonChanged, PersonLeft, PersonRegistered
from schemas.names import PREFIX_LENGTH, name_tokens
from schemas.people import Person, names
from schemas.sounds import sound_tokens
from schemas.tables import Upsert, Write
from streams.facts import Fact


def stated(
    fact: Fact, event: PersonRegistered | PersonChanged | PersonLeft, person: Person | None = None
) -> list[Write]:
    """Each event says all that holds. Rows of sites and names that they have left stay: `people` says what holds.

    `person` is the event's document, which has the names; whoever has left is looked for by none, so that they are
    refused does not hang on it.
    """
    columns = {
        "version": event.version,
        "active": event.active,
        "roles": list(event.roles),
        "sites": list(event.sites),
        "subspecialties": list(event.subspecialties),
        "stated_by": event.stated_by,
        "recorded": event.recorded,
        "bucket": event.bucket,
        "document_key": event.document_key,
        "document_sha256": event.document_sha256,
    }
    writes: list[Write] = [Upsert("people", {"person_id": event.person_id}, columns, fact.offset)]
    for site in dict.fromkeys(event.sites):
        key = {"site": site, "person_id": event.person_id}
        writes.append(Upsert("people_by_site", key, {"version": event.version}, fact.offset))
    for name in names(person) if person is not None else ():
        for token in (*name_tokens(name), *sound_tokens(name)):
            row = {"prefix": token[:PREFIX_LENGTH], "token": token, "person_id": event.person_id}
            writes.append(Upsert("staff_by_name", row, {"version": event.version}, fact.offset))
    return writes
