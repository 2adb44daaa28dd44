"""What the access event adds to an answer: the first read of a window, which waits for its event, against the next one.

The two reads are of the same small thing over the same connection, one after the other, so what differs is the event
alone; caches are warm before. Each purpose of use opens windows of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.bench.clients import Http, Latency
from tests.bench.corpus import Instance

PURPOSES = ("ETREAT", "CAREMGT", "PATRQT", "HOPERAT", "HSYSADMIN", "HQUALIMP", "PATSFTY", "HCOMPL")
PURPOSE_HEADER = "Sijil-Purpose-Of-Use"
ASKED_MS = 3.0
"""At most so much at p50."""


def cost(base: str, studies: Sequence[Sequence[Instance]]) -> dict[str, Latency]:
    """Name → latency. "added" is of the differences, pair by pair."""
    client = Http(base)
    first, following = [], []

    def read(path: str, accept: str, purpose: str) -> float:
        started = time.perf_counter()
        client.get(path, accept, **{PURPOSE_HEADER: purpose})
        return time.perf_counter() - started

    for study in studies:
        one = study[0]
        path = f"/dicom-web/studies/{one.study}/series/{one.series}/instances/{one.sop}"
        for address, accept in ((f"{path}/metadata", "application/dicom+json"), (path, "*/*")):
            for _ in range(3):
                read(address, accept, "TREAT")
            for purpose in PURPOSES:
                first.append(read(address, accept, purpose))
                following.append(read(address, accept, purpose))
    added = [one - two for one, two in zip(first, following, strict=True)]
    return {
        "first read of a window": Latency.of(first),
        "next read of the window": Latency.of(following),
        f"added by the access event (asked: {ASKED_MS:.0f} ms at p50)": Latency.of(added),
    }
