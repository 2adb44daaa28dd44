"""What a STOW-RS client is told (PS3.18 §10.5.3, Annex I)."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from producers.identify import Named
from producers.stow.answer import Failed, Outcome, Stored, body, status, xml_body

BASE = "http://archive/dicom-web"
ONE = Stored("1.1", "1.1.1", "1.1.1.1", "1.2.840")
TWO = Stored("2.2", "2.2.1", "2.2.1.1", "1.2.840")
BAD = Failed(Named("1.1", "1.1.1.9", "1.2.840"), 0xA900)
UNKNOWN = Failed(Named(), 0xC020)


@pytest.mark.parametrize(
    ("outcomes", "expected"), [([ONE], 200), ([ONE, TWO], 200), ([ONE, BAD], 202), ([BAD, UNKNOWN], 409)]
)
def test_status(outcomes: list[Outcome], expected: int) -> None:
    assert status(outcomes) == expected


def test_all_stored() -> None:
    answer = json.loads(body([ONE], BASE))
    assert answer == {
        "00081190": {"vr": "UR", "Value": [f"{BASE}/studies/1.1"]},
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": ["1.2.840"]},
                    "00081155": {"vr": "UI", "Value": ["1.1.1.1"]},
                    "00081190": {"vr": "UR", "Value": [f"{BASE}/studies/1.1/series/1.1.1/instances/1.1.1.1"]},
                }
            ],
        },
    }


def test_some_stored() -> None:
    answer = json.loads(body([ONE, BAD, UNKNOWN], BASE))
    assert [i["00081155"]["Value"] for i in answer["00081199"]["Value"]] == [["1.1.1.1"]]
    assert answer["00081198"]["Value"] == [
        {
            "00081150": {"vr": "UI", "Value": ["1.2.840"]},
            "00081155": {"vr": "UI", "Value": ["1.1.1.9"]},
            "00081197": {"vr": "US", "Value": [0xA900]},
        }
    ]
    assert answer["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC020]}}]


def test_both_forms_say_the_same_in_the_order_of_tags() -> None:
    outcomes: list[Outcome] = [BAD, ONE, UNKNOWN, ONE]
    answer = json.loads(body(outcomes, BASE))
    assert list(answer) == ["00081190", "00081198", "00081199", "0008119A"]
    document = ElementTree.fromstring(xml_body(outcomes, BASE))  # noqa: S314 (our own)
    assert [a.attrib["tag"] for a in document] == list(answer)
    assert [len(a) for a in document] == [len(e["Value"]) for e in answer.values()]


def test_studies_of_several_have_no_address_of_their_own() -> None:
    assert "00081190" not in json.loads(body([ONE, TWO], BASE))


def test_none_stored() -> None:
    assert set(json.loads(body([BAD], BASE))) == {"00081198"}
