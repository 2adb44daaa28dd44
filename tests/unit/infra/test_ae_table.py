import asyncio

import pytest

from infra import ae_table
from infra.ae_table import Ae, checked, find_caller
from infra.memory import MemoryTables
from schemas.errors import Invalid
from schemas.roles import Role
from schemas.tables import STATE_KEYSPACE, STATE_TABLES

CT = Ae("CT1", "10.2.3.4", 104, "CAI-01", "modality")
VANS = Ae("*", "10.9.0.0/16", 0, "VANS", "van")
LOCAL = Ae("*", "127.0.0.0/8", 0, "", "any")


@pytest.mark.parametrize(
    ("title", "address", "found"),
    [
        ("CT1", "10.2.3.4", CT),
        ("CT1 ", "10.2.3.4", CT),  # titles are padded to an even length
        ("CT1", "::ffff:10.2.3.4", CT),
        ("CT1", "10.2.3.5", None),
        ("CT1", "10.9.1.1", None),  # it is somebody else's title
        ("VAN7", "10.9.1.1", VANS),
        ("OTHER", "10.2.3.4", None),
        ("OTHER", "127.0.0.1", LOCAL),
        ("OTHER", "::1", None),
    ],
)
def test_a_caller_is_known_by_title_and_address(title: str, address: str, found: Ae | None) -> None:
    assert find_caller([LOCAL, VANS, CT], title, address) is found


def test_a_name_is_resolved_and_one_that_is_not_known_lets_nobody_in() -> None:
    assert find_caller([Ae("X", "localhost", 0)], "X", "127.0.0.1") is not None
    assert find_caller([Ae("X", "no-such-host.invalid", 0)], "X", "127.0.0.1") is None


@pytest.mark.parametrize(
    "wrong",
    [
        Ae("", "h", 1),
        Ae("A" * 17, "h", 1),
        Ae("A\\B", "h", 1),
        Ae("أشعة", "h", 1),
        Ae(" A", "h", 1),
        Ae("A", "", 1),
        Ae("A", "h", 70000),
        Ae("A", "h", 1, role="doctor"),
    ],
)
def test_what_cannot_be_an_ae_is_refused(wrong: Ae) -> None:
    with pytest.raises(Invalid):
        checked(wrong)


def test_rows_are_replaced_by_title_and_read_back() -> None:
    tables = MemoryTables(STATE_KEYSPACE, STATE_TABLES)

    async def work() -> list[Ae]:
        await ae_table.add(tables, Ae("CT1", "old", 1))
        await ae_table.add(tables, CT)
        await ae_table.add(tables, LOCAL)
        return await ae_table.read(tables)

    assert asyncio.run(work()) == [LOCAL, CT]


@pytest.mark.parametrize(
    ("role", "site", "expected"),
    [
        ("modality", "CAI-01", (Role.TECHNICIAN, {"CAI-01"}, "TREAT")),
        ("van", "", (Role.TECHNICIAN, {"HOME"}, "TREAT")),
        ("workstation", "CAI-01", (Role.RADIOLOGIST, {"CAI-01"}, "TREAT")),
        ("pacs", "CAI-01", (Role.RADIOLOGIST, {"CAI-01"}, "TREAT")),
        ("ehr", "", (Role.EHR, {"HOME"}, "TREAT")),
        ("any", "", (Role.LOCAL, {"HOME"}, "TREAT")),
    ],
)
def test_for_whom_an_ae_speaks(role: str, site: str, expected: tuple[Role, set[str], str]) -> None:
    found = ae_table.caller(Ae("CT1", "10.2.3.4", 104, site, role), "CT1", "10.2.3.4", "HOME")
    assert (found.role, set(found.sites), found.purpose) == expected
    assert (found.actor, found.via, found.address) == ("ae:CT1@10.2.3.4", "dimse", "10.2.3.4")
