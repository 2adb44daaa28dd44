"""Each report is printed once, whoever asks and however often; what could not be printed is tried again."""

from __future__ import annotations

import asyncio

import pytest

from consumers.delivery.press import Press
from consumers.report_pdf.sheet import Sheet
from schemas.errors import Transient
from tests.unit.consumers.test_report_pdf import sheet


class Printer:
    """Counts what it prints."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.broken = False

    async def print(self, wanted: Sheet) -> bytes:
        self.titles.append(wanted.notices[0] if wanted.notices else "")
        await asyncio.sleep(0)
        if self.broken:
            raise Transient("no process")
        return b"%PDF" + bytes(996)


def test_once_for_all_who_ask() -> None:
    async def scenario() -> None:
        press = Press((printer := Printer()).print)
        first = await asyncio.gather(*(press.printed(sheet()) for _ in range(8)))
        assert set(first) == {await press.printed(sheet())}
        assert len(printer.titles) == 1
        await press.printed(sheet(status="amended"))
        await press.printed(sheet("en"))
        assert len(printer.titles) == 3, "another version, another language"

    asyncio.run(scenario())


def test_a_failure_is_not_kept_and_who_gives_up_takes_nothing_from_others() -> None:
    async def scenario() -> None:
        press = Press((printer := Printer()).print)
        printer.broken = True
        with pytest.raises(Transient):
            await press.printed(sheet())
        printer.broken = False
        one, other = (asyncio.create_task(press.printed(sheet())) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        assert (await other).startswith(b"%PDF")
        assert len(printer.titles) == 2

    asyncio.run(scenario())


def test_the_oldest_go_when_there_are_too_many() -> None:
    async def scenario() -> None:
        press = Press((printer := Printer()).print, kept_bytes=2500)
        for version in (1, 2, 1, 3, 1, 2):  # 3 puts 2 out, which nobody had asked for again
            await press.printed(sheet(version=version, current_version=version))
        assert len(printer.titles) == 4

    asyncio.run(scenario())
