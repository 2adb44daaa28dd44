"""What a search shows of a study: made by the projection, completed by the door."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.answers import completed, study_answer

ROW: dict[str, Any] = {
    "study_uid": "1.2.3",
    "study_date": "20250228",
    "study_time": "101500",
    "accession": "A-1",
    "modalities": ["CT", "SR"],
    "sop_classes": ["1.2.840.10008.5.1.4.1.1.2"],
    "referring": "Doctor^A",
    "description": "CT chest",
    "patient_name": "Hassan^Mona=منى حسن",
    "patient_id": "P-77",
    "birth_date": "19800101",
    "sex": "F",
    "study_id": "S1",
    "series_count": 2,
    "instance_count": 7,
    "attributes": "",
}


def shown(**changes: Any) -> dict[str, Any]:
    """The completed answer, whose elements must come in the order of their tags and once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({tag for tag, _ in pairs}) == len(pairs)
        return dict(pairs)

    made = completed(study_answer({**ROW, **changes}).encode(), b'"ONLINE"', b'"http://archive/studies/1.2.3"')
    found: dict[str, Any] = json.loads(made, object_pairs_hook=once)
    assert list(found) == sorted(found)
    assert found["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
    assert found["00081190"] == {"vr": "UR", "Value": ["http://archive/studies/1.2.3"]}
    return found


@pytest.mark.parametrize("modalities", [[], None, [""]])
def test_a_study_without_a_modality_has_a_list_of_none(modalities: list[str] | None) -> None:
    """OHIF reads the list's length without asking whether there is one."""
    found = shown(modalities=modalities)
    assert found["00080061"] == {"vr": "CS", "Value": []}
    whole = shown()
    assert {tag: e for tag, e in found.items() if tag != "00080061"} == {
        tag: e for tag, e in whole.items() if tag != "00080061"
    }


def test_modalities_are_as_they_are() -> None:
    assert shown()["00080061"] == {"vr": "CS", "Value": ["CT", "SR"]}


@given(st.text(alphabet='"{}[]:,0\\8610TestعCS', max_size=40), st.booleans())
def test_no_text_is_taken_for_an_element(text: str, modality: bool) -> None:
    tricky = text + '"00080061":{"vr":"CS"}' + '"00100010":'
    found = shown(description=tricky, accession=tricky, patient_id=tricky, modalities=["CT"] if modality else [])
    assert found["00081030"]["Value"] == found["00080050"]["Value"] == [tricky]
    assert found["00080061"]["Value"] == (["CT"] if modality else [])
