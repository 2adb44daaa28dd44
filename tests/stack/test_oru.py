"""A record without FHIR: HAPI's HL7 v2 as the receiver of ORU^R01, killed before it answers and brought back.

The archive is in memory; the connection, what is read from the messages and the acknowledgements are real.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from consumers.delivery.entry import Away, Delivered, Entry, Outcome
from consumers.delivery.oru.destination import Oru
from infra import clock
from infra.mllp import MllpClient
from schemas.events import Event
from schemas.identity import derived_id
from tests.archive import wait_until
from tests.hl7v2.hapi import Receiver
from tests.unit.consumers.delivery.test_ehr import ANOTHERS, HERS, REPORT, Hospital, Record

pytestmark = [pytest.mark.connected, pytest.mark.slow]


class Wired(Hospital):
    """The hospital of the unit tests, whose record is a receiver."""

    def __init__(self, port: int) -> None:
        super().__init__(Record(), patient_id=HERS)
        self._port = port

    def sends(self, event: Event, subject: str = f"report/{REPORT}") -> Outcome:
        async def deliver() -> Any:
            client = MllpClient("127.0.0.1", self._port, timeout_s=60.0)
            oru = Oru(client, self.ehr._dossiers, self.state)
            try:
                return await oru.deliver(
                    Entry(derived_id("d", subject, repr(event)), "oru", subject, event, clock.now())
                )
            finally:
                await oru.close()

        found: Outcome = asyncio.run(deliver())
        return found


@pytest.mark.timeout(200)
def test_a_receiver_killed_before_it_answers_is_told_again(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    hospital = Wired(receiver.port)
    event = hospital.reported(1, "لا يوجد نزف")
    try:
        with pytest.raises(Away, match="not-reachable"):
            hospital.sends(event)
        receiver.start(mute=True)
        with ThreadPoolExecutor(1) as beside:
            sending = beside.submit(hospital.sends, event)
            wait_until(receiver.taken, 60, "it is taken, and not acknowledged")
            receiver.kill()
            with pytest.raises(Away, match="not-reachable"):
                sending.result(60)
        receiver.start()
        assert hospital.sends(event) == Delivered(1)
        first, again = receiver.taken()
        assert first == again, "the same message under the same control id: a receiver knows that it has it"
        assert again[1:] == [HERS, "F", "لا يوجد نزف"]
        assert hospital.sends(hospital.reported(2, "يوجد نزف")) == Delivered(2)
        assert hospital.sends(hospital.belongs_to(ANOTHERS), "study/1.2.9.1") == Delivered()
        withdrawn, right = receiver.taken()[-2:]
        assert (withdrawn[1], "نزف" in withdrawn[3]) == (HERS, False), "first it is taken back"
        assert right[1:] == [ANOTHERS, "F", "يوجد نزف"]
    finally:
        receiver.kill()
