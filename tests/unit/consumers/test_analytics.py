"""Figures per site and day, from the log alone."""

from __future__ import annotations

from consumers.analytics.command import read
from consumers.analytics.tally import Line, Tally
from infra.memory import MemoryLog
from schemas.envelope import Record, encode
from schemas.events import Event, PackStored, ReportIssued

SHA = "0" * 64


def uuid(n: int) -> str:
    return f"01900000-0000-7000-8000-{n:012}"


def pack(n: int, *, study: str = "1.2.3", site: str = "H01", day: str = "2025-03-01") -> PackStored:
    return PackStored(
        pack_id=uuid(n),
        study_uid=study,
        site=site,
        gateway="/gateway/H01/1",
        door="dimse",
        bucket="sijil-packs",
        pack_key="k",
        pack_size=1000,
        pack_sha256=SHA,
        manifest_key="m",
        manifest_size=10,
        manifest_sha256=SHA,
        instances=5,
        opened=f"{day}T08:00:00Z",
        sealed=f"{day}T08:00:01Z",
    )


def report(n: int, version: int, *, day: str = "2025-03-01") -> ReportIssued:
    return ReportIssued(
        report_id=uuid(n),
        version=version,
        status="final",
        study_uids=["1.2.3"],
        site="H01",
        issued=f"{day}T10:00:00Z",
        bucket="sijil-documents",
        document_key="d",
        document_size=10,
        document_sha256=SHA,
    )


def append(log: MemoryLog, *events: Event) -> None:
    for n, event in enumerate(events):
        log.append(encode(event, id=str(n), source="/x", time="2025-03-01T08:00:00Z")).result()


def test_what_comes_twice_counts_once() -> None:
    log, tally, positions = MemoryLog(), Tally(), dict[str, dict[int, int]]()
    append(log, pack(1), pack(1), pack(2), pack(3, study="1.2.4"), pack(4, site="H02", day="2025-03-02"))
    append(log, report(1, 1), report(1, 2), report(1, 2), report(2, 1, day="2025-03-02"))
    log.append(Record("sijil.reports", b"x", (("ce_id", b"1"),), b"no event"))
    assert read(log, tally, positions) == 10
    assert list(tally.lines()) == [
        Line("H01", "2025-03-01", 2, 15, 3000, 2),
        Line("H01", "2025-03-02", 0, 0, 0, 1),
        Line("H02", "2025-03-02", 1, 5, 1000, 0),
    ]


def test_following_reads_only_what_is_new() -> None:
    log, tally, positions = MemoryLog(), Tally(), dict[str, dict[int, int]]()
    append(log, pack(1))
    assert read(log, tally, positions) == 1
    assert read(log, tally, positions) == 0
    append(log, pack(2))
    assert read(log, tally, positions) == 1
    assert next(tally.lines()).bytes == 2000
