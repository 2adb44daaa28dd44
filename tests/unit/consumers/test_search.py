"""Searches over a filled archive find what looking at every study would find, page by page."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from consumers.api import search as search_module
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.multipart import parts_of

NAMES = [
    "Hassan^Mona=منى حسن",
    "Hassanein^Ali",
    "Said^Mona",
    "أحمد^محمد",
    "احمد علي^محمد",
    "عبد الله^عمر",
    "O'Neil^Mona",
    "",
]
DATES = ["20250228", "20250227", "20240105", "19991231", "", "20240106"]


@pytest.fixture(scope="module")
def archive() -> MemoryArchive:
    archive = MemoryArchive()
    for n, (name, date) in enumerate(itertools.product(NAMES, DATES), 1):
        study = f"1.2.{n}"
        files = [
            part10(
                f"{study}.{s}.{i}",
                study=study,
                series=f"{study}.{s}",
                PatientName=name,
                PatientID=f"P-{n % 10}",
                AccessionNumber=f"A-{n}" if n % 5 else "",
                StudyDate=date,
                StudyTime=f"{n % 24:02}0000",
                Modality="CT" if (n + s) % 2 else "MR",
                SeriesNumber=s,
                InstanceNumber=i,
            )
            for s in (1, 2)
            for i in range(1, 1 + n % 3 + 1)
        ]
        archive.store(files)
    return archive


@pytest.fixture(scope="module")
def everything(archive: MemoryArchive) -> dict[str, dict[str, Any]]:
    """Every study by UID, found one by one."""
    found = ask(archive, *(f"/dicom-web/studies?StudyInstanceUID=1.2.{n}" for n in range(1, 49)))
    return {uid(row): row for rows in found for row in rows}


def ask(archive: MemoryArchive, *paths: str) -> list[list[dict[str, Any]]]:
    async def run() -> list[list[dict[str, Any]]]:
        async with archive.client() as client:
            answers = [await client.get(p) for p in paths]
        assert [a.status_code for a in answers] == [200] * len(paths)
        return [a.json() for a in answers]

    return asyncio.run(run())


def uid(row: dict[str, Any], tag: str = "0020000D") -> str:
    return str(row[tag]["Value"][0])


def value(row: dict[str, Any], tag: str) -> Any:
    return (row.get(tag, {}).get("Value") or [""])[0]


def test_every_study_is_found_by_its_uid(everything: dict[str, dict[str, Any]]) -> None:
    assert len(everything) == 48


def predicates() -> Iterator[tuple[str, Any]]:
    def name(row: dict[str, Any]) -> str:
        return "=".join((value(row, "00100010") or {}).values())

    yield "", lambda r: True
    yield "PatientID=P-3", lambda r: value(r, "00100020") == "P-3"
    yield "AccessionNumber=A-7", lambda r: value(r, "00080050") == "A-7"
    yield (
        "PatientID=P-1&StudyDate=20240101-20241231",
        lambda r: value(r, "00100020") == "P-1" and "20240101" <= value(r, "00080020") <= "20241231",
    )
    yield "StudyDate=20240101-", lambda r: value(r, "00080020") >= "20240101"
    yield "StudyDate=-20240105", lambda r: "" < value(r, "00080020") <= "20240105"
    yield "StudyDate=20250228", lambda r: value(r, "00080020") == "20250228"
    yield "StudyTime=10", lambda r: value(r, "00080030").startswith("10")
    yield "PatientName=hassan*", lambda r: name(r).upper().startswith("HASSAN")
    yield "PatientName=HASSAN%5EMONA", lambda r: name(r).upper().startswith("HASSAN^MONA")
    yield "PatientName=*mona*", lambda r: "MONA" in name(r).upper()
    yield f"PatientName={quote('أحمد*')}", lambda r: name(r)[:4] in ("أحمد", "احمد")
    yield f"PatientName={quote('احمد*')}", lambda r: name(r)[:4] in ("أحمد", "احمد")
    yield f"PatientName={quote('عبدالله*')}", lambda r: name(r).startswith("عبد")
    yield f"PatientName={quote('منى*')}", lambda r: "=منى" in name(r)
    yield "PatientName=O%27N*", lambda r: name(r).startswith("O'N")
    yield (
        "PatientName=hassan*&StudyDate=20250101-20251231",
        lambda r: name(r).upper().startswith("HASSAN") and value(r, "00080020").startswith("2025"),
    )
    yield "NumberOfStudyRelatedInstances=2", lambda r: value(r, "00201208") == 2
    yield "PatientID=NOBODY", lambda r: False


@pytest.mark.parametrize(("query", "predicate"), [pytest.param(q, p, id=q or "all") for q, p in predicates()])
def test_a_search_finds_what_looking_would(
    archive: MemoryArchive, everything: dict[str, dict[str, Any]], query: str, predicate: Any
) -> None:
    (found,) = ask(archive, f"/dicom-web/studies?{query}")
    assert len({uid(r) for r in found}) == len(found)
    assert {uid(r): r for r in found} == {u: r for u, r in everything.items() if predicate(r)}


@pytest.mark.parametrize("query", ["", "PatientName=hassan*", "PatientName=*mona*", "PatientID=P-3"])
def test_pages_join_to_the_whole(archive: MemoryArchive, query: str) -> None:
    (whole,) = ask(archive, f"/dicom-web/studies?{query}")
    pages = ask(archive, *(f"/dicom-web/studies?{query}&limit=5&offset={o}" for o in range(0, len(whole) + 5, 5)))
    assert [uid(r) for page in pages for r in page] == [uid(r) for r in whole]
    assert pages[-1] == []


def test_the_newest_day_stands_first(archive: MemoryArchive) -> None:
    (found,) = ask(archive, "/dicom-web/studies")
    days = [value(r, "00080020") or "20250301" for r in found]
    assert days == sorted(days, reverse=True)


def test_many_tokens_fall_back_to_the_days(archive: MemoryArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = ask(archive, "/dicom-web/studies?PatientName=hassan*")
    monkeypatch.setattr(search_module, "TOKENS_MAX", 1)
    (after,) = ask(archive, "/dicom-web/studies?PatientName=hassan*")
    assert {uid(r) for r in after} == {uid(r) for r in before}


# ------------------------------------------------------------------------------------------------ below a study


def test_series_of_a_study(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/studies/1.2.5/series")
    assert [uid(r, "0020000E") for r in rows] == ["1.2.5.1", "1.2.5.2"]
    assert [value(r, "00201209") for r in rows] == [3, 3]
    assert "00100010" not in rows[0]


def test_instances_of_a_series(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/studies/1.2.5/series/1.2.5.2/instances?InstanceNumber=2")
    assert [uid(r, "00080018") for r in rows] == ["1.2.5.2.2"]
    assert value(rows[0], "00280010") == 4


def test_series_and_instances_of_all_studies_show_what_is_above(archive: MemoryArchive) -> None:
    series, instances, modality = ask(
        archive,
        "/dicom-web/series?PatientID=P-3",
        "/dicom-web/instances?PatientID=P-3&Modality=MR",
        "/dicom-web/studies?PatientID=P-3",
    )
    studies = {uid(r): r for r in modality}
    assert {uid(r) for r in series} == set(studies)
    assert len(series) == sum(value(r, "00201206") for r in modality)
    assert all(value(r, "00080060") == "MR" and value(r, "00100020") == "P-3" for r in instances)
    assert instances


def test_an_instance_by_its_uid_alone(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/instances?SOPInstanceUID=1.2.7.1.2,1.2.9.9.9")
    assert [uid(r, "00080018") for r in rows] == ["1.2.7.1.2"]
    assert archive.get("/dicom-web/instances?SOPInstanceUID=1.2.7.1.2&PatientID=NOBODY").json() == []


def test_a_list_of_studies_in_a_nested_search_narrows_to_the_address(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/studies/1.2.5/series?StudyInstanceUID=1.2.6")
    assert rows == []


def test_copies_of_an_instance_are_one(archive: MemoryArchive) -> None:
    again = MemoryArchive()
    again.store([part10("1.2.3.1.1")])
    again.store([part10("1.2.3.1.1", InstanceNumber=99)])
    (rows,) = ask(again, "/dicom-web/studies/1.2.3/instances")
    assert [value(r, "00200013") for r in rows] == [1]


# ------------------------------------------------------------------------------------------------ the answer


def test_includefield_brings_more(archive: MemoryArchive) -> None:
    plain, more, all_ = ask(
        archive,
        "/dicom-web/studies?StudyInstanceUID=1.2.5",
        "/dicom-web/studies?StudyInstanceUID=1.2.5&includefield=00081030,InstitutionName",
        "/dicom-web/studies?StudyInstanceUID=1.2.5&includefield=all",
    )
    assert set(plain[0]) <= set(more[0]) <= set(all_[0])


def test_required_attributes_are_there_without_a_value(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/studies?PatientID=P-5&StudyDate=")
    empty = [r for r in rows if "Value" not in r["00080050"]]
    assert empty
    assert empty[0]["00080050"] == {"vr": "SH"}
    assert empty[0]["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


def test_names_have_their_groups(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/studies?PatientName=Hassan%5EMona&limit=1")
    assert rows[0]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Hassan^Mona", "Ideographic": "منى حسن"}]}


def test_warnings(archive: MemoryArchive) -> None:
    assert "more results" in archive.get("/dicom-web/studies?limit=3").headers["Warning"]
    assert "Warning" not in archive.get("/dicom-web/studies?PatientID=P-3").headers
    assert "Warning" not in archive.get("/dicom-web/studies?limit=100&fuzzymatching=true").headers


def test_a_search_that_is_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")])
    object.__setattr__(archive.settings, "query_deadline_s", -1.0)
    answer = archive.get("/dicom-web/studies")
    assert answer.json() == []
    assert "deadline" in answer.headers["Warning"]


def test_links_lead_back_to_the_door(archive: MemoryArchive) -> None:
    row = archive.get("/dicom-web/studies?StudyInstanceUID=1.2.5", Host="pacs.example:8443").json()[0]
    assert row["00081190"]["Value"] == ["http://pacs.example:8443/dicom-web/studies/1.2.5"]


@pytest.mark.parametrize(
    ("accept", "status", "media_type"),
    [
        ("*/*", 200, "application/dicom+json"),
        ("application/json", 200, "application/json"),
        ("application/dicom+json, application/json", 200, "application/dicom+json"),
        ("application/dicom+xml", 406, "application/problem+json"),
        ("image/png", 406, "application/problem+json"),
    ],
)
def test_negotiation(archive: MemoryArchive, accept: str, status: int, media_type: str) -> None:
    answer = archive.get("/dicom-web/studies?StudyInstanceUID=1.2.5", Accept=accept)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, media_type)


# ------------------------------------------------------------------------------------------------ plans


@pytest.mark.parametrize(
    ("query", "table", "reads"),
    [
        ("PatientID=P-3", "studies_by_patient_id", 1),
        ("AccessionNumber=A-7", "studies_by_accession", 1),
        ("StudyInstanceUID=1.2.7", "studies", 1),
        ("StudyDate=20240105-20240107", "studies_by_day", 3),
        ("PatientName=*assane*", "studies_by_name_token", 40),
        ("limit=5&offset=40", "studies_by_day", 8),
    ],
)
def test_a_plan_is_told_in_debug_mode(archive: MemoryArchive, query: str, table: str, reads: int) -> None:
    path = f"/dicom-web/studies?{query}"
    assert "Sijil-Explain" not in archive.get(path, **{"Sijil-Explain": "1"}).headers
    object.__setattr__(archive.settings, "query_explain", 1)
    try:
        told = json.loads(archive.get(path, **{"Sijil-Explain": "1"}).headers["Sijil-Explain"])
    finally:
        object.__setattr__(archive.settings, "query_explain", 0)
    assert told["table"] == table
    assert told["partitions_read"] <= reads


@pytest.mark.parametrize("query", ["PatientName=mona%20hass&", "PatientName=ali%5Ehassanein&"])
def test_fuzzy_names(archive: MemoryArchive, query: str) -> None:
    literal, fuzzy = ask(archive, f"/dicom-web/studies?{query}", f"/dicom-web/studies?{query}fuzzymatching=true")
    assert literal == []
    assert len(fuzzy) == len(DATES)


@pytest.mark.parametrize("name", ["محمد", "Mohamed", "Muhammad*", "Mohamed Ahmad", "ahmed محمد"])
def test_names_are_found_in_the_other_script(archive: MemoryArchive, name: str) -> None:
    asked = f"/dicom-web/studies?PatientName={quote(name)}"
    exact, fuzzy = ask(archive, asked, f"{asked}&fuzzymatching=true")
    assert {uid(r) for r in fuzzy} == {f"1.2.{n}" for n in range(19, 31)}
    assert len(exact) in (0, 6), "without it, as the standard says"


def test_a_cut_search_goes_on_where_it_stood(archive: MemoryArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = ask(archive, "/dicom-web/studies?PatientSex=F")
    monkeypatch.setattr(search_module, "PAGE_MIN", 4)
    monkeypatch.setattr(search_module, "NEXT_PAGE", 4)
    monkeypatch.setattr("consumers.api.walk.Deadline.over", over_after(6))
    found: list[str] = []
    cursor = ""
    for _ in range(40):
        answer = archive.get(f"/dicom-web/studies?PatientSex=F{cursor}")
        found += [uid(r) for r in answer.json()]
        if "Sijil-Cursor" not in answer.headers:
            break
        cursor = f"&cursor={answer.headers['Sijil-Cursor']}"
    assert found == [uid(r) for r in whole]


def over_after(times: int) -> Any:
    """A deadline that passes when it is asked so often."""

    def over(self: Any) -> bool:
        self.asked = getattr(self, "asked", 0) + 1
        self.passed = self.asked > times
        return bool(self.passed)

    return over


# ------------------------------------------------------------------------------------------------ clients


OHIF = "limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030"


def test_what_the_viewer_asks(archive: MemoryArchive) -> None:
    """OHIF 3.13: its study list with and without its filters, one study, a patient's studies, a study's series."""
    whole, name, one, patient, dated, series = ask(
        archive,
        f"/dicom-web/studies?{OHIF}",
        f"/dicom-web/studies?{OHIF}&PatientName=*mona*",
        f"/dicom-web/studies?{OHIF}&StudyInstanceUID=1.2.5",
        f"/dicom-web/studies?00100020=P-3&{OHIF}",
        f"/dicom-web/studies?{OHIF}&00100020=*P-3*&00081030=*chest*&ModalitiesInStudy=CT&StudyDate=20240101-20250301",
        "/dicom-web/studies/1.2.5/series?includefield=00080021%2C00080031%2C0008103E%2C00200011",
    )
    assert len(whole) == 48
    assert len(name) == 3 * len(DATES)
    assert [uid(r) for r in one] == ["1.2.5"]
    assert {value(r, "00100020") for r in patient} == {"P-3"}
    assert dated
    assert {"0008103E", "00200011", "00201209"} <= set(series[0])


def test_answers_are_ordered_by_tag(archive: MemoryArchive) -> None:
    for rows in ask(
        archive,
        "/dicom-web/studies?limit=2",
        "/dicom-web/studies?limit=2&includefield=all",
        "/dicom-web/series?limit=2&includefield=all",
        "/dicom-web/instances?limit=2",
    ):
        assert all(list(r) == sorted(r) for r in rows)


def test_what_a_patient_has_is_counted_when_asked(archive: MemoryArchive) -> None:
    rows, plain = ask(
        archive,
        "/dicom-web/studies?PatientID=P-3&includefield=00201200,NumberOfPatientRelatedInstances",
        "/dicom-web/studies?PatientID=P-3",
    )
    assert {value(r, "00201200") for r in rows} == {len(rows)}
    assert {value(r, "00201204") for r in rows} == {sum(value(r, "00201208") for r in plain)}
    assert "00201200" not in plain[0]


def test_an_attribute_that_is_matched_by_is_shown(archive: MemoryArchive) -> None:
    (rows,) = ask(archive, "/dicom-web/instances?StudyInstanceUID=1.2.5&PhotometricInterpretation=MONOCHROME2")
    assert rows
    assert all(value(r, "00280004") == "MONOCHROME2" for r in rows)


def test_answers_in_xml(archive: MemoryArchive) -> None:
    accept = 'multipart/related; type="application/dicom+xml"'
    answer = archive.get("/dicom-web/studies?PatientName=Hassan%5EMona&limit=2", Accept=accept)
    assert answer.status_code == 200
    found = parts_of(answer)
    assert [p.headers["content-type"] for p in found] == ["application/dicom+xml"] * 2
    for part in found:
        model = ElementTree.fromstring(part.body)  # noqa: S314 - our own answer
        attributes = {a.get("keyword"): a for a in model}
        assert attributes["PatientName"].findtext("PersonName/Ideographic/FamilyName") == "منى حسن"
        assert attributes["PatientName"].findtext("PersonName/Alphabetic/GivenName") == "Mona"
        assert [a.get("tag") for a in model] == sorted(str(a.get("tag")) for a in model)
    assert archive.get("/dicom-web/studies?PatientID=NOBODY", Accept=accept).status_code == 204
