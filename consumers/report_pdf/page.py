"""A report as PDF: A4, by fpdf2 with HarfBuzz, so that Arabic letters join and lines run right to left. Pure.

Each paragraph runs as its own first letter says, labels as the language of the sheet; Latin words and numbers are
isolated (`direction`). The same sheet gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import segno
from fpdf import FPDF
from fpdf.enums import Align, XPos, YPos
from PIL import Image, UnidentifiedImageError

from consumers import direction
from consumers.direction import Direction, isolated
from consumers.report_pdf import typeface
from consumers.report_pdf.sheet import Section, Sheet
from consumers.report_pdf.words import word

FONTS: Final = Path(__file__).with_name("fonts")
FAMILY: Final = "amiri"
MARGIN, HEAD_TOP, FOOT = 18.0, 12.0, 34.0
"""mm."""
INK, QUIET, LINE, BAND, ACCENT = (20, 38, 46), (77, 96, 105), (200, 210, 214), (253, 240, 214), (10, 95, 102)
LOGO_PIXELS_MAX: Final = 4_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def render(sheet: Sheet) -> bytes:
    """The file."""
    page = _Page(sheet)
    page.add_page()
    page.write_title()
    page.write_facts()
    for section in sheet.sections:
        page.write_section(section)
    page.write_signatures()
    page.write_feet()
    typeface.reduce(page)
    return bytes(page.output())


class _Page(FPDF):
    """Letterhead and foot on every page."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__(format="A4")
        self.sheet = sheet
        self.way: Direction = "rtl" if sheet.lang == "ar" else "ltr"
        self.set_margins(MARGIN, HEAD_TOP, MARGIN)
        self.set_auto_page_break(True, FOOT)
        typeface.add(self, FAMILY, "", FONTS / "amiri-400.ttf")
        typeface.add(self, FAMILY, "B", FONTS / "amiri-700.ttf")
        self.set_lang(sheet.lang)
        self.set_title(sheet.title)
        self.set_creator("Sijil")
        self.set_producer("Sijil")
        self.set_creation_date(_moment(sheet.issued))
        # The file's identifier is of what it says, not of when it was made
        self._identity = hashlib.sha256(repr(sheet).encode()).hexdigest()[:32].upper()
        self.set_text_color(*INK)
        self.set_draw_color(*LINE)

    def file_id(self) -> str:
        """As fpdf2 wants it."""
        return f"<{self._identity}><{self._identity}>"

    # -------------------------------------------------------------------------------------------- on every page

    def header(self) -> None:
        """The letterhead; on later pages whose report it is."""
        sheet = self.sheet
        head = sheet.letterhead
        top = self.get_y()
        logo = _logo(head.logo)
        if logo is not None:
            # At the end of the line, opposite the name
            x = MARGIN if self.way == "rtl" else self.w - MARGIN - 18
            self.image(logo, x=x, y=top, w=18, h=18, keep_aspect_ratio=True)
        self._line(head.said(head.name, sheet.lang, sheet.site), 17, "B", 8, colour=ACCENT)
        address = head.said(head.address, sheet.lang)
        for text in filter(None, (address, head.phone)):
            self._line(text, 10, "", 5, colour=QUIET)
        self.set_y(max(self.get_y(), top + (18 if logo is not None else 0)) + 2)
        self.set_draw_color(*ACCENT)
        self.set_line_width(0.6)
        self.line(MARGIN, self.get_y(), self.w - MARGIN, self.get_y())
        self.set_line_width(0.2)
        self.set_draw_color(*LINE)
        self.ln(3)
        for notice in sheet.notices:
            self.set_fill_color(*BAND)
            self._line(notice, 12, "B", 9, align=Align.C, fill=True)
            self.ln(1.5)
        if self.page_no() > 1:
            whose = " · ".join(value for _, value in sheet.facts[:2])
            self._line(whose, 10, "", 6, colour=QUIET)
            self.ln(1)

    def write_feet(self) -> None:
        """Once all is written: how to see whether it holds, and how many pages there must be."""
        self.set_auto_page_break(False)
        code = _qr(self.sheet.verify_url)
        for number in range(1, self.pages_count + 1):
            self.page = number
            self._foot(code)

    def _foot(self, code: Image.Image) -> None:
        sheet = self.sheet
        top = self.h - FOOT + 5
        self.line(MARGIN, top, self.w - MARGIN, top)
        side = 21.0
        x = MARGIN if self.way == "rtl" else self.w - MARGIN - side
        self.image(code, x=x, y=top + 2, w=side, h=side)
        self.set_y(top + 2)
        indent = side + 3
        lang = sheet.lang
        page = f"{word('page', lang)} {self.page} {word('of', lang)} {self.pages_count}"
        issue = f"{word('version', lang)} {sheet.version} · {word('fingerprint', lang)} {sheet.mark}"
        self._line(word("verify", lang), 9, "", 5, colour=QUIET, indent=indent)
        self._line(sheet.verify_url, 8, "", 5, colour=QUIET, indent=indent)
        self._line(issue, 9, "", 5, colour=QUIET, indent=indent)
        self._line(page, 9, "", 5, colour=QUIET, indent=indent)

    # -------------------------------------------------------------------------------------------- once

    def write_title(self) -> None:
        """What was examined."""
        self._paragraph(self.sheet.title, 18, "B", 10, align=Align.C)
        self.ln(2)

    def write_facts(self) -> None:
        """Who, what and when: two columns of label and value."""
        facts = self.sheet.facts
        half = -(-len(facts) // 2)
        wide = (self.w - 2 * MARGIN) / 2
        top = self.get_y()
        bottom = top
        for column, part in enumerate((facts[:half], facts[half:])):
            right = (column == 0) == (self.way == "rtl")
            x = MARGIN + wide if right else MARGIN
            self.set_y(top)
            for label, value in part:
                self._fact(label, value, x, wide)
            bottom = max(bottom, self.get_y())
        self.set_y(bottom + 1)
        self.line(MARGIN, self.get_y(), self.w - MARGIN, self.get_y())
        self.ln(3)

    def _fact(self, label: str, value: str, x: float, wide: float) -> None:
        label_wide = 30.0
        y = self.get_y()
        label_x, value_x = (x + wide - label_wide, x) if self.way == "rtl" else (x, x + label_wide)
        align = Align.R if self.way == "rtl" else Align.L
        with self._running(self.way):
            self.set_xy(label_x, y)
            self.set_font(FAMILY, "", 10)
            self.set_text_color(*QUIET)
            self.cell(label_wide, 6.5, isolated(label), align=align)
            self.set_text_color(*INK)
        with self._running(direction.of(value, self.way)):
            self.set_xy(value_x, y)
            self.set_font(FAMILY, "B", 11)
            self.multi_cell(wide - label_wide, 6.5, isolated(value), align=align, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def write_section(self, section: Section) -> None:
        """A heading and its paragraphs; a heading never stands alone at a page's end."""
        if self.get_y() > self.h - FOOT - 24:
            self.add_page()
        self._paragraph(section.heading, 13, "B", 8, colour=ACCENT, way=self.way)
        style = "B" if section.weighty else ""
        for paragraph in section.text.splitlines():
            if paragraph.strip():
                self._paragraph(paragraph.strip(), 12, style, 7)
            else:
                self.ln(3)
        self.ln(2.5)

    def write_signatures(self) -> None:
        """Who answers for it."""
        lang = self.sheet.lang
        if self.get_y() > self.h - FOOT - 24:
            self.add_page()
        self.ln(2)
        self._paragraph(word("signed", lang), 11, "", 6, colour=QUIET, way=self.way)
        for text in self.sheet.signatures or (word("unsigned", lang),):
            self._paragraph(text, 12, "B", 7, way=self.way)

    # -------------------------------------------------------------------------------------------- pieces

    def _start(self) -> Align:
        return Align.R if self.way == "rtl" else Align.L

    def _paragraph(
        self,
        text: str,
        size: float,
        style: str,
        height: float,
        *,
        colour: tuple[int, int, int] = INK,
        align: Align | None = None,
        way: Direction | None = None,
    ) -> None:
        way = way or direction.of(text, self.way)
        with self._running(way):
            self.set_font(FAMILY, style, size)
            self.set_text_color(*colour)
            self.multi_cell(
                0,
                height,
                isolated(text),
                align=align or (Align.R if way == "rtl" else Align.L),
                new_x=XPos.LMARGIN,
                new_y=YPos.NEXT,
            )
            self.set_text_color(*INK)

    def _line(
        self,
        text: str,
        size: float,
        style: str,
        height: float,
        *,
        colour: tuple[int, int, int] = INK,
        align: Align | None = None,
        fill: bool = False,
        indent: float = 0.0,
    ) -> None:
        """One line, however long."""
        with self._running(self.way):
            self.set_font(FAMILY, style, size)
            self.set_text_color(*colour)
            if indent and self.way == "rtl":
                self.set_x(MARGIN + indent)
            self.cell(
                self.w - 2 * MARGIN - indent,
                height,
                isolated(text),
                align=align or self._start(),
                fill=fill,
                new_x=XPos.LMARGIN,
                new_y=YPos.NEXT,
            )
            self.set_text_color(*INK)

    @contextmanager
    def _running(self, way: Direction) -> Iterator[None]:
        self.set_text_shaping(True, direction=way)
        yield


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return _EPOCH


def _qr(url: str) -> Image.Image:
    """Left to choose a mask, segno tries all eight in Python, a sixth of the time of a sheet. Readers are told which it
    is (ISO/IEC 18004 §7.9).
    """
    out = io.BytesIO()
    segno.make(url, error="m", mask=0).save(out, kind="png", scale=4, border=1)
    return Image.open(out)


def _logo(data: bytes) -> Image.Image | None:
    """A picture that is one; a letterhead without it rather than no report."""
    if not data:
        return None
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if image.width * image.height > LOGO_PIXELS_MAX:
            return None
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return image
