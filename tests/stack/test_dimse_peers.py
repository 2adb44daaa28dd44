"""Who may call the DICOM door, at its socket: by title, address and role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, association

from infra.ae_table import Ae
from tests.stack.gateway_doors import Doors, open_doors
from tests.unit.producers.samples import file

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH_MODEL = "1.2.840.10008.1.20.1"
TABLE = [
    Ae("CT1", "127.0.0.2", 0, site="CAI-01", role="modality"),
    Ae("HEALTH", "127.0.0.3", 0, role="ehr"),
    Ae("*", "127.0.0.9", 0, role="any"),
]


@contextmanager
def calling(doors: Doors, title: str, address: str, called: str = "SIJIL") -> Iterator[association.Association]:
    """An association proposed from an address of this machine."""
    ae = AE(title)
    for uid in (CT, PUSH_MODEL, "1.2.840.10008.1.1"):
        ae.add_requested_context(uid, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", doors.dicom_port, ae_title=called, bind_address=(address, 0))
    try:
        yield assoc
    finally:
        assoc.release()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with pytest.MonkeyPatch.context() as patch, open_doors(tmp_path_factory.mktemp("peers"), patch, TABLE) as found:
        yield found


@pytest.mark.parametrize(
    ("title", "address", "called", "diagnostic"),
    [
        ("CT1", "127.0.0.2", "SIJIL", 0),
        ("HEALTH", "127.0.0.3", "SIJIL", 0),
        ("ANYBODY", "127.0.0.9", "SIJIL", 0),
        ("ANYBODY", "127.0.0.2", "SIJIL", 3),  # an address that is known, under an unknown title
        ("CT1", "127.0.0.3", "SIJIL", 3),  # a title that is known, from another's address
        ("CT1", "127.0.0.9", "SIJIL", 3),  # from where anybody may call, but not as somebody else
        ("ct1", "127.0.0.2", "SIJIL", 3),
        ("CT1", "127.0.0.2", "OTHER", 7),
    ],
)
def test_title_and_address_together(doors: Doors, title: str, address: str, called: str, diagnostic: int) -> None:
    with calling(doors, title, address, called) as assoc:
        if not diagnostic:
            assert assoc.is_established
            assert assoc.send_c_echo().Status == 0
            return
        assert assoc.is_rejected
        answer = assoc.acceptor.primitive
        assert answer is not None
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, diagnostic)


def test_what_a_role_may_not_is_refused_and_nothing_is_kept(doors: Doors, tmp_path: Path) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(file("1.2.3.4.5", study="1.2.3.4"))
    for title, address, expected in (("HEALTH", "127.0.0.3", 0x0124), ("CT1", "127.0.0.2", 0x0000)):
        with calling(doors, title, address) as assoc:
            assert assoc.send_c_store(path).Status == expected, title
            asked = Dataset()
            asked.TransactionUID = "1.9.8.7"
            asked.ReferencedSOPSequence = []
            status, _ = assoc.send_n_action(asked, 1, PUSH_MODEL, f"{PUSH_MODEL}.1")
            assert (status.Status == 0x0124) == (expected == 0x0124), title
    doors.until(lambda: len(doors.files()) == 1)
