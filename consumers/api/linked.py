"""Files that people joined, as one: which patient keys are a person's, and which of them stands for all.

Links are read where they are needed, and believed for a moment: what is undone is apart again everywhere at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from consumers.api import queries
from infra import clock
from infra.ports import Row, Tables

BELIEVED_S = 2.0
KNOWN_MAX = 20_000
KEYS_MAX = 64
"""Files of one person that are looked at: far more than anybody has, and a bound should somebody link wrongly."""
REPLACES, REPLACED_BY = "replaces", "replaced-by"


@dataclass(frozen=True)
class Group:
    """The files of one person."""

    key: str
    """The file that stands for all."""
    keys: tuple[str, ...]
    """All of them, `key` first."""

    def links(self, key: str) -> tuple[tuple[str, ...], str]:
        """As FHIR's Patient.link has it: (files that a file replaces, the file that it is replaced by)."""
        return (self.keys[1:], "") if key == self.key else ((), self.key)


class Linked:
    """The links of one process. Raises Transient while the read models are away."""

    def __init__(self, tables: Callable[[], Tables]) -> None:
        self._connected = tables
        self._known: OrderedDict[str, tuple[float, tuple[Row, ...]]] = OrderedDict()

    async def group(self, key: str) -> Group:
        """The files of the person whose file `key` is; that alone as a rule."""
        return (await self.groups((key,)))[key]

    async def groups(self, keys: Iterable[str]) -> dict[str, Group]:
        """The same of several, read together: as many rounds as the longest chain of links has links."""
        wanted = tuple(dict.fromkeys(k for k in keys if k))
        links: dict[str, tuple[Row, ...]] = {}
        front = list(wanted)
        while front and len(links) < KEYS_MAX * len(wanted):
            links |= await self._links(front)
            front = list(dict.fromkeys(r["other_key"] for k in front for r in links[k] if r["other_key"] not in links))
        return {key: _group(key, links) for key in wanted}

    async def widened(self, keys: Iterable[str]) -> frozenset[str]:
        """Patient keys with those of all files that are joined to theirs."""
        return frozenset(k for group in (await self.groups(keys)).values() for k in group.keys)

    async def _links(self, keys: list[str]) -> dict[str, tuple[Row, ...]]:
        now = clock.monotonic()
        found = {k: e[1] for k in keys if (e := self._known.get(k)) is not None and e[0] > now}
        missing = [k for k in keys if k not in found]
        answers = await self._connected().select_many([queries.links_of(k) for k in missing]) if missing else []
        for key, rows in zip(missing, answers, strict=True):
            found[key] = tuple(r for r in rows if r["holds"] and r["relation"] in (REPLACES, REPLACED_BY))
            self._known[key] = (now + BELIEVED_S, found[key])
            self._known.move_to_end(key)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return found


def _group(key: str, links: dict[str, tuple[Row, ...]]) -> Group:
    members = [key]
    for one in members:  # grows while it is walked
        members += [r["other_key"] for r in links.get(one, ()) if r["other_key"] not in members][:KEYS_MAX]
    # Who is replaced by nobody stands for all; of several (or none, in a circle) the least, so that all agree.
    replaced = {k for k in members for r in links.get(k, ()) if r["relation"] == REPLACED_BY}
    first = min((k for k in members if k not in replaced), default=min(members))
    return Group(first, (first, *sorted(k for k in members if k != first)))
