"""What a gateway's spool has of given instances, read from the journals of its packs.

A pack does not change once it is sealed, so what its journal says is read once and kept, within a bound of instances;
journals of the packs used longest ago are read again when they are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path

from producers.commitment.judging import Held
from producers.journal import Member, scan
from producers.open_pack import journal_path
from producers.spool import Spool

KNOWN_MAX = 500_000
"""Instances whose pack is remembered: some 200 bytes each."""
CACHED_PACKS_MAX = 2_000
"""Committed packs looked at, the youngest first: what is only in older ones the read models know."""


class Holdings:
    """Used by one thread."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        self._count = 0

    def find(self, sop_uids: Collection[str]) -> dict[str, Held]:
        """SOP Instance UID → what is held, of those of which something is. Seals the packs that are open with them.

        Raises OSError.
        """
        wanted = frozenset(sop_uids)
        self._spool.seal_instances(wanted)
        pending, cached = self._spool.shelf.packs()
        classes: dict[str, set[str]] = {}
        waiting: set[str] = set()
        for pack_id in pending:
            for uid, sop_class in self._matching(pack_id, wanted):
                classes.setdefault(uid, set()).add(sop_class)
                waiting.add(uid)
        left = set(wanted - waiting)
        for pack_id in cached[-CACHED_PACKS_MAX:][::-1]:
            if not left:
                break
            for uid, sop_class in self._matching(pack_id, left):
                classes.setdefault(uid, set()).add(sop_class)
            left -= classes.keys()
        return {uid: Held(frozenset(found), uid in waiting) for uid, found in classes.items()}

    def _matching(self, pack_id: str, wanted: Collection[str]) -> list[tuple[str, str]]:
        members = self._members(pack_id)
        return [(uid, members[uid]) for uid in wanted if uid in members]

    def _members(self, pack_id: str) -> Mapping[str, str]:
        known = self._known.get(pack_id)
        if known is None:
            known = self._known[pack_id] = _read(journal_path(self._spool.shelf.folder, pack_id))
            self._count += len(known)
            while self._count > KNOWN_MAX and len(self._known) > 1:
                _, dropped = self._known.popitem(last=False)
                self._count -= len(dropped)
        self._known.move_to_end(pack_id)
        return known


def _read(journal: Path) -> dict[str, str]:
    """SOP Instance UID → SOP class; nothing when the pack was evicted meanwhile."""
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return {}
    return {x.line.sop_uid: x.line.sop_class for x in scan(data) if isinstance(x.line, Member)}
