"""person.* → staff as they are now, and who is of a site."""

from __future__ import annotations

from schemas.events import PersonChanged, PersonLeft, PersonRegistered
from schemas.tables import Upsert, Write
from streams.facts import Fact


def stated(fact: Fact, event: PersonRegistered | PersonChanged | PersonLeft) -> list[Write]:
    """Each event says all that holds. Rows of sites that they have left stay: `people` says what holds."""
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
    return writes
