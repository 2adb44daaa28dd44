"""A read that presents a store's token waits for what was stored, and no longer than allowed."""

from __future__ import annotations

import asyncio

import pytest

from consumers.api.read_after import ReadAfter
from consumers.api.views import Views
from infra import clock
from schemas import read_token
from schemas.errors import Invalid, Overloaded
from schemas.tables import Upsert
from tests.unit.consumers.archive import MemoryArchive, part10


def test_a_token_is_text_and_back() -> None:
    packs = {str(clock.uuid7()) for _ in range(read_token.PACKS_MAX)}
    assert set(read_token.decode(read_token.encode(packs))) == packs
    assert read_token.encode(()) == ""
    assert read_token.encode({*packs, str(clock.uuid7())}) == "", "too long for a header"
    assert len(read_token.encode(packs)) < 2200


@pytest.mark.parametrize("token", ["", "1.", "1.AAAA", "2." + "A" * 22, "1.!", "x" * 9000])
def test_no_token(token: str) -> None:
    with pytest.raises(Invalid, match="read token"):
        read_token.decode(token)


def at(archive: MemoryArchive, next_offset: int) -> None:
    """The projection has passed everything before it."""
    key = {"projection": "views", "topic": "sijil.study.arrivals", "partition": 0}
    write = Upsert("projection_positions", key, {"next_offset": next_offset}, timestamp=next_offset)
    asyncio.run(archive.tables.apply([write]))


def test_it_waits_until_the_projection_has_passed() -> None:
    archive = MemoryArchive()
    pack = archive.store([part10("1.2.3.1.1")])

    async def wait(within_s: float, *packs: str) -> None:
        views = Views(lambda: archive.tables)
        await views.look()
        await ReadAfter(views, within_s).wait(read_token.encode(packs))

    with pytest.raises(Overloaded):
        asyncio.run(wait(0.1, pack))
    at(archive, 1)
    with pytest.raises(Overloaded):
        asyncio.run(wait(0.1, pack))
    at(archive, 2)
    asyncio.run(wait(0.1, pack))
    with pytest.raises(Overloaded):
        asyncio.run(wait(0.1, pack, str(clock.uuid7())))


def test_an_answer_after_the_time_says_when_to_come_back() -> None:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")])
    object.__setattr__(archive.settings, "read_wait_s", 0.1)
    answer = archive.get(
        "/dicom-web/studies/1.2.3/metadata", **{read_token.HEADER: read_token.encode([str(clock.uuid7())])}
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert archive.get("/dicom-web/studies/1.2.3/metadata", **{read_token.HEADER: "nonsense"}).status_code == 400
    assert archive.get("/dicom-web/studies/1.2.3/metadata").status_code == 200
