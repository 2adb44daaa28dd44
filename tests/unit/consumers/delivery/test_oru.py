"""Reports as ORU^R01: the message as a receiver reads it, and what its answers come to."""

from __future__ import annotations

import asyncio
import base64
import itertools
from typing import Any

import pytest

from consumers.delivery.entry import Away, Delivered, Entry, Instead, NotNeeded, Refused, Waiting
from consumers.delivery.oru.destination import Oru
from consumers.delivery.oru.message import Numbered, acknowledged, control_id
from infra import clock
from schemas.errors import Invalid, Transient
from schemas.events import Event
from schemas.hl7 import Message, parse
from schemas.identity import derived_id
from tests.unit.consumers.archive import part10
from tests.unit.consumers.delivery.test_ehr import ANOTHERS, HERS, REPORT, Hospital, Record


class Receiver:
    """Takes messages and answers as it is told; remembers what it took."""

    def __init__(self) -> None:
        self.took: list[Message] = []
        self.code = "AA"
        self.away = False

    async def send(self, message: bytes) -> bytes:
        if self.away:
            raise Transient("no acknowledgement")
        found = parse(message.decode())
        if self.code == "AA":
            self.took.append(found)
        return f"MSH|^~\\&|EHR|MOH|SIJIL||20261123||ACK|1|P|2.5.1\rMSA|{self.code}|{found.header.text(10)}\r".encode()

    async def close(self) -> None:
        """Nothing to let go."""


class Wired(Hospital):
    """The same hospital, told by messages."""

    def __init__(self, receiver: Receiver, patient_id: str = HERS) -> None:
        super().__init__(Record(), patient_id=patient_id)
        client: Any = receiver
        self.oru = Oru(client, self.ehr._dossiers, self.state)

    def sends(self, event: Event, subject: str = f"report/{REPORT}", again: int = 0) -> Any:
        entry = Entry(derived_id("d", subject, repr(event), again), "oru", subject, event, clock.now())
        return asyncio.run(self.oru.deliver(entry))


def test_the_message() -> None:
    hospital = Wired(receiver := Receiver())
    event = hospital.reported(1, "لا يوجد نزف | ^ نهاية\nسطر")
    assert hospital.sends(event) == Delivered(1)
    (message,) = receiver.took
    header, person, request = message.header, message.first("PID"), message.first("OBR")
    assert (header.text(9), header.text(9, 3), header.text(12), header.text(18)) == (
        "ORU", "ORU_R01", "2.5.1", "UNICODE UTF-8",
    )  # fmt: skip
    assert len(header.text(10)) == 20
    assert [person.text(3, n) for n in (1, 4, 5)] == [HERS, "EGY", "NI"]
    assert (person.text(5, 1), person.text(5, 2), person.text(7), person.text(8)) == ("Hassan", "Mona", "19800101", "F")
    assert (request.text(3), request.text(18), request.text(25)) == (REPORT, "A-1", "F")
    observations = [s for s in message.segments if s.name == "OBX"]
    assert [(o.text(2), o.text(11)) for o in observations] == [("TX", "F"), ("ED", "F")]
    assert observations[0].text(5) == "لا يوجد نزف | ^ نهاية\nسطر"
    assert base64.b64decode(observations[1].text(5, 5)).startswith(b"%PDF")
    assert message.first("ZDS").text(1) == "1.2.9.1"


def test_a_repeat_has_the_same_control_id_and_a_person_s_wish_another() -> None:
    hospital = Wired(receiver := Receiver())
    event = hospital.reported(1, "x")
    assert {hospital.sends(event), hospital.sends(event), hospital.sends(event, again=1)} == {Delivered(1)}
    first, second, third = (m.header.text(10) for m in receiver.took)
    assert first == second != third
    assert hospital.sends(hospital.reported(2, "y")) == Delivered(2)
    assert receiver.took[-1].first("OBR").text(25) == "F"
    assert hospital.sends(event) == NotNeeded(), "an older one does not follow a newer"


def test_answers() -> None:
    hospital = Wired(receiver := Receiver())
    event = hospital.reported(1, "x")
    receiver.code = "AE"
    assert hospital.sends(event) == Refused("ack-ae")
    receiver.code = "AR"
    with pytest.raises(Away, match="ack-ar"):
        hospital.sends(event)
    receiver.away = True
    with pytest.raises(Away, match="not-reachable"):
        hospital.sends(event)
    receiver.away, receiver.code = False, "AA"
    assert hospital.sends(event) == Delivered(1)
    assert len(receiver.took) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"MSH|^~\\&|A\r", b"MSH|^~\\&|A|B\rMSA|AA|OTHER\r", b"MSH|^~\\&|A|B\rMSA||C1\r"]
)
def test_an_answer_to_something_else_is_none(answer: bytes) -> None:
    with pytest.raises(Invalid, match="the answer"):
        acknowledged(answer, "C1")


def test_a_reassigned_study_is_withdrawn_from_the_wrong_patient_first() -> None:
    hospital = Wired(receiver := Receiver())
    assert hospital.sends(hospital.belongs_to(HERS), "study/1.2.9.1") == NotNeeded(), "nothing was sent of it"
    hospital.sends(hospital.reported(1, "SECRET"))
    receiver.took.clear()
    assert hospital.sends(hospital.belongs_to(ANOTHERS), "study/1.2.9.1") == Delivered()
    wrong, right = receiver.took
    assert wrong.first("PID").text(3) == HERS
    assert {s.text(11) for s in wrong.segments if s.name == "OBX"} == {"W"}
    assert not any("SECRET" in "|".join(s.raw) for s in wrong.segments)
    assert right.first("PID").text(3) == ANOTHERS
    assert right.first("OBX").text(5) == "SECRET"


def test_joined_files_are_one_patient_and_apart_again_two() -> None:
    hospital = Wired(receiver := Receiver())
    hospital.sends(hospital.reported(1, "SECRET"))
    hospital.archive.store([part10("1.2.9.2.1.1", study="1.2.9.2", PatientID=ANOTHERS)])
    linked = hospital.joined(holds=True)
    assert hospital.sends(linked, f"patient/{linked.patient_key}") == Instead(("study/1.2.9.2", "study/1.2.9.1"))
    receiver.took.clear()
    assert hospital.sends(linked, "study/1.2.9.2") == NotNeeded(), "nothing was sent of it"
    assert hospital.sends(linked, "study/1.2.9.1") == Delivered()
    assert [m.first("PID").text(3) for m in receiver.took] == [HERS, ANOTHERS], "taken back first"
    assert hospital.sends(linked, "study/1.2.9.1", again=1) == NotNeeded()
    assert hospital.sends(hospital.joined(holds=False), "study/1.2.9.1") == Delivered()
    assert [m.first("PID").text(3) for m in receiver.took[2:]] == [ANOTHERS, HERS]


def test_a_hospital_number_goes_with_its_issuer_and_none_waits() -> None:
    local = Wired(receiver := Receiver(), patient_id="P-77")
    assert local.sends(local.reported(1, "x")) == Delivered(1)
    pid = receiver.took[0].first("PID")
    assert [pid.text(3, n) for n in (1, 5)] == ["P-77", "MR"]
    assert pid.text(3, 4)
    nobody = Wired(Receiver(), patient_id="")
    assert nobody.sends(nobody.reported(1, "x")) == Waiting("no-patient-id")
    missing = Wired(Receiver())
    missing.archive.store([part10("1.2.9.2.1.1", study="1.2.9.2", PatientID=ANOTHERS)])
    assert missing.sends(missing.reported(1, "x", ("1.2.9.1", "1.2.9.3"))) == Waiting("study-unknown")
    assert missing.sends(missing.reported(2, "x", ("1.2.9.1", "1.2.9.2"))) == Waiting("patients-differ")


def test_control_ids_fit_their_field() -> None:
    ids = [control_id(derived_id("x", n)) for n in itertools.islice(itertools.count(), 50)]
    assert {len(i) for i in ids} == {20}
    assert len(set(ids)) == 50
    assert Numbered("ALEX", "1").cx == ("1", "", "", "ALEX", "MR")
