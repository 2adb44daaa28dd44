"""What is known of the instances of a storage commitment, and what follows from it. Pure.

An instance is committed when every copy of it that this gateway has acknowledged is in S3 with its event, or when the
archive has it and this gateway holds nothing of it. Copies that conflict with each other are all kept, so they are
committed all the same. Nothing is called never received while somebody may still be bringing it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from producers.commitment.transaction import (
    CLASS_CONFLICT,
    CLASS_NOT_SUPPORTED,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    Outcome,
    Reference,
)
from producers.dicom.contexts import is_storage


@dataclass(frozen=True)
class Held:
    """What one gateway has of an instance."""

    classes: frozenset[str]
    """SOP classes of its copies."""
    pending: bool
    """A copy is acknowledged and not yet committed."""


@dataclass(frozen=True)
class Judged:
    """Where a transaction stands."""

    outcome: Outcome | None
    """None: not everything is final."""
    unknown: frozenset[str] = field(default_factory=frozenset)
    """SOP Instance UIDs of which nobody knows anything."""


def wanted(references: Iterable[Reference], held: Mapping[str, Held]) -> list[str]:
    """SOP Instance UIDs that the archive is to be asked for: those this gateway does not hold in that SOP class."""
    return list(
        dict.fromkeys(
            r.sop_uid
            for r in references
            if is_storage(r.sop_class) and (r.sop_uid not in held or r.sop_class not in held[r.sop_uid].classes)
        )
    )


def judge(
    references: Collection[Reference],
    held: Mapping[str, Held],
    archived: Mapping[str, frozenset[str]],
    *,
    unknown_is_final: bool,
    late: bool,
) -> Judged:
    """`held` by this gateway, `archived` in the read models: SOP Instance UID → what is known.

    `unknown_is_final`: everything that may have been on its way when the grace ended would be in `archived`.
    `late`: the days of the transaction are over, so what is still pending has failed.
    """
    committed: list[Reference] = []
    failed: list[tuple[Reference, int]] = []
    pending = False
    unknown: set[str] = set()
    for reference in references:
        here = held.get(reference.sop_uid)
        classes = archived.get(reference.sop_uid, frozenset()) | (here.classes if here else frozenset())
        if not is_storage(reference.sop_class):
            failed.append((reference, CLASS_NOT_SUPPORTED))
        elif here and here.pending:
            pending = True
            failed.append((reference, PROCESSING_FAILURE))
        elif not classes:
            unknown.add(reference.sop_uid)
            failed.append((reference, NO_SUCH_INSTANCE))
        elif reference.sop_class not in classes:
            failed.append((reference, CLASS_CONFLICT))
        else:
            committed.append(reference)
    final = late or (not pending and (unknown_is_final or not unknown))
    outcome = Outcome(tuple(committed), tuple(failed)) if final else None
    return Judged(outcome, frozenset(unknown))
