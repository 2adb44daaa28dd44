"""Who may call: the table as it was last known, whatever has become of Cassandra."""

from __future__ import annotations

from pathlib import Path

from infra.ae_table import Ae
from producers.callers import Callers
from schemas.errors import Transient

CT1 = Ae("CT1", "10.1.0.5", 104, site="HOSP1", issuer="HOSP1-MRN")
LOOPBACK = Ae("*", "127.0.0.0/8", 0)


def away() -> list[Ae]:
    raise Transient("cassandra is away")


def test_callers_by_title_and_address(tmp_path: Path) -> None:
    it = Callers(tmp_path / "ae.json", lambda: [CT1, LOOPBACK])
    assert it.find("CT1", "10.1.0.5") is None  # not read yet
    it.refresh()
    assert it.find("CT1", "10.1.0.5") == CT1
    assert it.find("CT1", "10.1.0.6") is None
    assert it.find("ANYTHING", "127.0.0.1") == LOOPBACK


def test_the_last_table_known_outlives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "data" / "ae.json"
    Callers(file, lambda: [CT1]).refresh()
    again = Callers(file, away)
    again.refresh()
    assert again.find("CT1", "10.1.0.5") == CT1


def test_a_changed_table_counts_at_once(tmp_path: Path) -> None:
    table = [CT1]
    it = Callers(tmp_path / "ae.json", lambda: list(table))
    it.refresh()
    table.clear()
    it.refresh()
    assert it.find("CT1", "10.1.0.5") is None
    assert Callers(tmp_path / "ae.json", away).find("CT1", "10.1.0.5") is None


def test_a_remembered_table_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "ae.json").write_bytes(b"{nonsense")
    it = Callers(tmp_path / "ae.json", away)
    it.refresh()
    assert it.find("CT1", "10.1.0.5") is None
