"""Dose SRs (PS3.16 TID 10001, 10011) as figures of a report."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydicom import Dataset

from schemas.dose_report import of_study, read
from schemas.report_content import Dose


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def item(kind: str, name: tuple[str, str], *children: Dataset, **values: Any) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINS", kind, [code(*name)]
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    if children:
        ds.ContentSequence = list(children)
    return ds


def num(value: str, meaning: str, number: str, unit: str, scheme: str = "DCM") -> Dataset:
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = number, [code(unit, unit, "UCUM")]
    found = item("NUM", (value, meaning), MeasuredValueSequence=[measured])
    found.ConceptNameCodeSequence = [code(value, meaning, scheme)]
    return found


def acquisition(uid: str, ctdi: str, dlp: str) -> Dataset:
    """TID 10013: one irradiation event of a CT."""
    dose = item(
        "CONTAINER", ("113829", "CT Dose"),
        num("113830", "Mean CTDIvol", ctdi, "mGy"), num("113838", "DLP", dlp, "mGy.cm"),
    )  # fmt: skip
    return item(
        "CONTAINER", ("113819", "CT Acquisition"), item("UIDREF", ("113769", "Irradiation Event UID"), UID=uid), dose
    )


def ct(*events: tuple[str, str, str], total: str, at: str = "080000") -> Dataset:
    """TID 10011."""
    ds = Dataset()
    ds.ContentDate, ds.ContentTime = "20250301", at
    whole = item(
        "CONTAINER", ("113811", "CT Accumulated Dose Data"),
        num("113812", "Total Number of Irradiation Events", str(len(events)), "{events}"),
        num("113813", "CT Dose Length Product Total", total, "mGy.cm"),
    )  # fmt: skip
    ds.ContentSequence = [whole, *(acquisition(*e) for e in events)]
    return ds


def plane(dap: str, rp: str, fluoro: str) -> Dataset:
    """TID 10002: what one plane of an angiography device gave."""
    return item(
        "CONTAINER", ("113702", "Accumulated X-Ray Dose Data"),
        num("113722", "Dose Area Product Total", dap, "Gy.m2"),
        num("113725", "Dose (RP) Total", rp, "Gy"),
        num("113730", "Total Fluoro Time", fluoro, "s"),
    )  # fmt: skip


def figures(*reports: Dataset) -> dict[str, tuple[Decimal, str]]:
    return {d.code: (d.value, d.unit) for d in of_study([read(r.to_json_dict()) for r in reports])}


def test_a_ct_says_its_highest_ctdi_and_all_its_dlp() -> None:
    found = figures(ct(("1.1", "2.5", "10"), ("1.2", "14.25", "402.5"), total="412.5"))
    assert found == {"113830": (Decimal("14.25"), "mGy"), "113813": (Decimal("412.5"), "mGy.cm")}
    (first, _) = of_study([read(ct(("1.1", "2.5", "10"), total="10").to_json_dict())])
    assert first == Dose(code="113830", meaning="Mean CTDIvol", value=Decimal("2.5"), unit="mGy")


def test_an_angiography_adds_up_its_planes() -> None:
    ds = Dataset()
    ds.ContentSequence = [plane("0.0012", "0.4", "61"), plane("0.0003", "0.1", "9.5")]
    assert figures(ds) == {
        "113722": (Decimal("0.0015"), "Gy.m2"),
        "113725": (Decimal("0.4"), "Gy"),
        "113730": (Decimal("70.5"), "s"),
    }


def test_a_report_that_is_sent_again_with_more_counts_once() -> None:
    first = ct(("1.1", "2.5", "10"), total="10")
    second = ct(("1.1", "2.5", "10"), ("1.2", "14", "400"), total="410", at="081000")
    corrected = ct(("1.1", "2.5", "10"), ("1.2", "14", "400"), total="411", at="090000")
    another = ct(("1.9", "7", "100"), total="100", at="100000")
    assert figures(first, second)["113813"] == (Decimal(410), "mGy.cm")
    assert figures(second, first)["113813"] == (Decimal(410), "mGy.cm")
    assert figures(corrected, second, first)["113813"] == (Decimal(411), "mGy.cm")
    assert figures(first, second, another)["113813"] == (Decimal(510), "mGy.cm"), "a second examination of the study"


@pytest.mark.parametrize(
    "broken",
    [
        num("113813", "DLP", "12", "mGy.cm", scheme="99LOCAL"),
        num("121206", "Distance", "12", "mm"),
        item("NUM", ("113813", "CT Dose Length Product Total")),
        item("CONTAINER", ("113811", "CT Accumulated Dose Data")),
    ],
)
def test_what_is_not_known_says_nothing(broken: Dataset) -> None:
    ds = Dataset()
    ds.ContentSequence = [broken]
    assert figures(ds) == {}
    assert figures(Dataset()) == {}


def test_a_tree_without_end_ends() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"0040A730": {"vr": "SQ", "Value": [deep, {"0040A043": {"Value": ["x"]}}, 7]}}
    assert read(deep).figures == ()
