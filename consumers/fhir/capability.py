"""What the FHIR door can do, as R4 CapabilityStatement (hl7.org/fhir/R4/capabilitystatement.html). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from consumers.fhir.codes import MEDIA_TYPE, VERSION, Resource, compact
from consumers.fhir.subscription import TOPIC_EXTENSION


@dataclass(frozen=True)
class Ability:
    """Of one resource: interactions, search parameters (name → (type, documentation)), includes, `_revinclude`s."""

    resource: str
    interactions: Sequence[str]
    parameters: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    includes: Sequence[str] = ()
    about: str = ""
    revincludes: Sequence[str] = ()
    operations: Mapping[str, str] = field(default_factory=dict)
    """Name → canonical of its definition."""
    topics: Sequence[str] = ()
    """Canonicals of the topics of subscriptions."""


def capability_statement(abilities: Iterable[Ability], *, base: str, version: str, date: str) -> Resource:
    """`base`: the URL of the door, `version` of the software, `date` of the statement (FHIR dateTime)."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "publisher": "Sijil",
        "kind": "instance",
        "software": {"name": "Sijil", "version": version},
        "implementation": {"description": "National radiology archive: images, orders and reports", "url": base},
        "fhirVersion": VERSION,
        "format": [MEDIA_TYPE, "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "cors": False,
                    "service": [
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                                    "code": "OAuth",
                                    "display": "OAuth",
                                }
                            ]
                        }
                    ],
                    "description": "Bearer tokens of the archive's OpenID Connect provider; every read is recorded.",
                },
                "resource": [_resource(a) for a in abilities],
            }
        ],
    }


def _resource(ability: Ability) -> Resource:
    return compact(
        {
            "extension": [{"url": TOPIC_EXTENSION, "valueCanonical": t} for t in ability.topics],
            "type": ability.resource,
            "documentation": ability.about,
            "interaction": [{"code": i} for i in ability.interactions],
            "versioning": "versioned" if {"vread", "update"} & set(ability.interactions) else "no-version",
            "searchInclude": list(ability.includes),
            "searchRevInclude": list(ability.revincludes),
            "searchParam": [
                {"name": name, "type": kind, "documentation": about}
                for name, (kind, about) in ability.parameters.items()
            ],
            "operation": [{"name": n, "definition": d} for n, d in ability.operations.items()],
        }
    )
