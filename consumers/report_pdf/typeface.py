"""The fonts of a sheet, read once in a process. Left to itself fpdf2 parses each of them for each file and takes the
glyphs of the file out of 6,000 in Python, 0.2 s of CPU; HarfBuzz does that in a millisecond. To break lines it has
HarfBuzz shape each letter, and what stands before it, many times over: how wide a text is, is known from the first.
"""

from __future__ import annotations

from copy import copy
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

import uharfbuzz as hb
from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.fonts import HarfBuzzFont, SubsetMap, TTFFont

_SHAPED_BY: Final = ("fragment_direction", "script", "language")
_UNUSED: Final = ("GDEF", "GPOS", "GSUB", "OS/2", "name", "post")
"""Tables that no reader of a PDF looks at (ISO 32000-1 §9.9, table 126): shaping is done when the file is written."""
WIDTHS_MAX: Final = 4_096
"""Texts whose widths are known at once."""


class _Font(TTFFont):
    """Shares with its copies how wide texts are."""

    def __init__(self, path: Path) -> None:
        super().__init__(FPDF(), path, "", "")
        self._widths: dict[tuple[object, ...], tuple[int, float]] = {}

    def shaped_text_width(
        self, text: str, font_size_pt: float, text_shaping_params: dict[str, Any] | None
    ) -> tuple[int, float]:
        key = (text, font_size_pt, *map((text_shaping_params or {}).get, _SHAPED_BY))
        known = self._widths.get(key)
        if known is None:
            known = super().shaped_text_width(text, font_size_pt, text_shaping_params)
            if len(self._widths) >= WIDTHS_MAX:
                self._widths.clear()
            self._widths[key] = known
        return known


@cache
def _parsed(path: Path) -> tuple[_Font, hb.Face]:
    return _Font(path), hb.Face(hb.Blob.from_file_path(path))


def add(page: FPDF, family: str, style: str, path: Path) -> None:
    """As `FPDF.add_font`; `style` is "" or "B"."""
    parsed, face = _parsed(path)
    font = copy(parsed)
    # What a file changes is its own.
    font.i, font.fontkey, font.emphasis = len(page.fonts) + 1, family + style, font.emphasis.coerce(style)
    font.cw, font.missing_glyphs = parsed.cw.copy(), []
    font.subset = SubsetMap(font)
    font._hbfont = HarfBuzzFont(face)
    page.fonts[font.fontkey] = font


def reduce(page: FPDF) -> None:
    """Once all is written: leave in each font what was used."""
    for font in page.fonts.values():
        if isinstance(font, TTFFont):
            font.ttfont = _Part(font)


class _Part(TTFont):  # type: ignore[misc]
    """The glyphs that a file uses, under the names that the whole font has for them; embedded as HarfBuzz made it. To
    fpdf2, which would reduce it once more, it has no tables.
    """

    def __init__(self, font: TTFFont) -> None:
        _, face = _parsed(font.ttffile)
        wanted = hb.SubsetInput()
        wanted.sets(hb.SubsetInputSets.GLYPH_INDEX).update(g.glyph_id for g, _ in font.subset.items() if g is not None)
        wanted.sets(hb.SubsetInputSets.DROP_TABLE_TAG).update(int.from_bytes(t.encode(), "big") for t in _UNUSED)
        wanted.flags = hb.SubsetFlags.NOTDEF_OUTLINE | hb.SubsetFlags.NO_LAYOUT_CLOSURE
        plan = hb.SubsetPlan(face, wanted)
        self._data: bytes = plan.execute().blob.data
        super().__init__()
        names, kept = font.ttfont.getGlyphOrder(), plan.new_to_old_glyph_mapping
        self._ids = {names[kept[n]]: n for n in range(len(kept))}
        self.setGlyphOrder(list(self._ids))

    def getGlyphID(self, glyphName: str) -> int:
        return self._ids[glyphName]

    def save(self, file: IO[bytes], reorderTables: bool | None = True) -> None:
        file.write(self._data)
