"""A pack → rows, and all packs of a study → its rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from infra.memory import MemoryObjects
from schemas.errors import Invalid
from schemas.pack import Manifest
from schemas.tables import BY_NAME, Upsert, Write
from streams.apply import bounded
from streams.arrivals import Folded, fold, fresh
from streams.pack_rows import PackRow
from streams.projections.studies import project
from tests.unit.streams.samples import KEYS, PERSON, T0, Pack, fact


def folded(*packs: Pack, first: int = 10) -> Folded:
    objects = MemoryObjects()
    facts = [fact(p.put(objects), first + n, at_ms=T0 + n) for n, p in enumerate(packs)]
    return fold(facts, (), {f.offset: p.manifest for f, p in zip(facts, packs, strict=True)}, KEYS)


def rows(writes: list[Write], table: str) -> list[Upsert]:
    return [w for w in writes if w.table == table and isinstance(w, Upsert)]


def test_every_write_names_the_whole_key_and_known_columns() -> None:
    for write in folded(Pack(0), Pack(1, header={})).writes:
        table = BY_NAME[write.table]
        assert write.key.keys() == set(table.primary_key)
        if isinstance(write, Upsert):
            assert write.columns.keys() <= table.columns.keys() - write.key.keys()
            assert None not in write.columns.values()


def test_counts_are_distinct_over_packs_that_overlap() -> None:
    made = [Pack(0, (("1", "1", "a"), ("1", "2", "b"))), Pack(1, (("1", "2", "b"), ("2", "3", "c")), site="VAN-2")]
    (study,) = rows(folded(*made).writes, "studies")
    assert study.timestamp == 11
    got = {n: study.columns[n] for n in ("instance_count", "series_count", "pack_count", "bytes", "sites")}
    assert got == {
        "instance_count": 3,
        "series_count": 2,
        "pack_count": 2,
        "bytes": 3600,
        "sites": ["CAIRO-1", "VAN-2"],
    }
    series = {w.key["series_uid"]: w for w in rows(folded(*made).writes, "series")}
    assert series["1.2.3.1.0"].columns["instance_count"] == 2
    assert series["1.2.3.2.0"].timestamp == 11


def test_attributes_of_study_and_series_are_those_of_the_lowest_offset() -> None:
    later = Pack(1, header={**PERSON, "t00100010": "Other^Name", "t00081030": "later"}, series={"t0008103E": "later"})
    first = Pack(0, series={"t0008103E": "first"})
    writes = folded(first, later).writes
    (study,), (series,) = rows(writes, "studies"), rows(writes, "series")
    assert study.columns["description"] == "CT chest"
    assert series.columns["description"] == "first"
    tokens = {"hassan", "mona", "مني", "حسن", "~hsn", "~mn"}
    assert {w.key["token"] for w in rows(writes, "studies_by_name_token")} == tokens
    assert {w.key["token"] for w in rows(writes, "name_tokens")} == tokens
    assert not [w for w in rows(writes, "name_trigrams") if w.key["token"].startswith("~")]


def test_a_record_that_comes_twice_is_no_news() -> None:
    once, twice = folded(Pack(0)), folded(Pack(0), Pack(0))
    assert twice.writes == once.writes
    assert not twice.failed


def test_another_pack_under_a_known_id_fails() -> None:
    objects = MemoryObjects()
    event = Pack(0).put(objects)
    facts = [fact(event, 1), fact(msgspec.structs.replace(event, pack_sha256="0" * 64), 2)]
    found = fold(facts, (), {1: Pack(0).manifest}, KEYS)
    assert [(f.offset, e.reason) for f, e in found.failed] == [(2, "pack-id-reused")]
    assert fresh(facts, ()) == facts[:1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pack_id": "01950000-0000-7000-8000-00000000ffff"}, "manifest-other-pack"),
        ({"study_uid": "1.2.99"}, "manifest-other-pack"),
        ({"sha256": "0" * 64}, "manifest-other-pack"),
    ],
)
def test_a_manifest_of_something_else_is_refused(change: dict[str, str], reason: str) -> None:
    manifest = Pack(0).manifest
    other = Manifest(msgspec.structs.replace(manifest.pack, **change), manifest.instances)
    with pytest.raises(Invalid) as refused:
        project(fact(Pack(0).put(MemoryObjects()), 1), other, KEYS)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sop_uid": "not a uid"}, "uid-invalid"),
        ({"series_uid": ""}, "uid-missing"),
        ({"header": msgspec.Raw(b"[1]")}, "manifest-header"),
        ({"header": msgspec.Raw(b'{"00100020":{"vr":"LO","Value":7}}')}, "manifest-header"),
        ({"length": 1 << 62}, "manifest-range"),
    ],
)
def test_an_instance_line_that_cannot_be_is_refused(change: dict[str, object], reason: str) -> None:
    manifest = Pack(0).manifest
    line = msgspec.structs.replace(manifest.instances[0], **change)
    with pytest.raises(Invalid) as refused:
        project(fact(Pack(0).put(MemoryObjects()), 1), Manifest(manifest.pack, (line,)), KEYS)
    assert refused.value.reason == reason


def test_one_bad_pack_leaves_the_others_of_the_study() -> None:
    objects = MemoryObjects()
    facts = [fact(Pack(n).put(objects), n) for n in range(3)]
    found = fold(facts, (), {0: Pack(0).manifest, 1: Invalid("manifest-missing"), 2: Pack(2).manifest}, KEYS)
    assert [a.row.offset for a in found.arrivals] == [0, 2]
    assert [(f.offset, e.reason) for f, e in found.failed] == [(1, "manifest-missing")]


def test_without_date_accession_and_name_a_study_is_found_by_its_arrival() -> None:
    writes = folded(Pack(0, header={"t00100020": "", "t00080020": "20250230"})).writes
    (day,) = rows(writes, "studies_by_day")
    assert (day.key["day"], day.key["moment"]) == ("20250301", "20250301")
    assert json.loads(day.columns["answer"])["00080020"] == {"vr": "DA"}
    for table in ("studies_by_accession", "studies_by_patient_id", "studies_by_name_token", "name_tokens"):
        assert not rows(writes, table)
    assert rows(writes, "studies_by_patient")[0].key["moment"] == day.key["moment"]


def test_a_row_is_read_as_it_was_written() -> None:
    row = folded(Pack(0, (("1", "1", "a"), ("2", "2", "b")))).arrivals[0].row
    written = row.write()
    arrival = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=row.arrival_ms)
    columns = {**written.key, **written.columns, "arrival": arrival}
    assert PackRow.read(columns) == row


def test_batches_are_bounded_by_instances() -> None:
    objects = MemoryObjects()
    event = Pack(0).put(objects)
    facts = [fact(msgspec.structs.replace(event, instances=n), i) for i, n in enumerate((4000, 90, 10, 9000, 1))]
    assert [len(part) for part in bounded(facts)] == [2, 1, 1, 1]
    assert list(bounded([])) == []


def test_frames_too_large_for_a_row_are_left_to_the_manifest() -> None:
    manifest = Pack(0, (("1", "1", "a"), ("1", "2", "b"))).manifest
    lines = (
        msgspec.structs.replace(manifest.instances[0], frames=msgspec.Raw(b"[" + b"1," * 9000 + b"1]")),
        msgspec.structs.replace(manifest.instances[1], frames=msgspec.Raw(b"[1]")),
    )
    event = Pack(0, (("1", "1", "a"), ("1", "2", "b"))).put(MemoryObjects())
    found = project(fact(event, 1), Manifest(manifest.pack, lines), KEYS)
    assert [w.columns["frames"] for w in rows(found.writes, "instances")] == ["", "[1]"]
