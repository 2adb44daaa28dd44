"""HL7 v2 messages as text: segments, fields, repetitions, components (HL7 v2.5.1 ch. 2.5 to 2.7). Pure.

A message is kept as it came; values are cut out and unescaped when they are asked for. What a version of the standard
allows where is not checked here: systems write what their site agreed upon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.errors import Invalid

SEGMENTS_MAX: Final = 20_000
NULL: Final = '""'
"""A field that says: no value any more (ch. 2.5.3.2)."""
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}\Z")
_LINE_BREAKS: Final = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Separators:
    """MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @property
    def encoding(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent


@dataclass(frozen=True)
class Segment:
    """One line. Fields, repetitions, components and subcomponents are counted from 1, as in the standard."""

    name: str
    raw: tuple[str, ...]
    """Fields as they came; raw[0] is field 1."""
    separators: Separators

    def field(self, number: int) -> str:
        """A field as it came; "" for one that is absent or null."""
        found = self.raw[number - 1] if 0 < number <= len(self.raw) else ""
        return "" if found == NULL else found

    def is_null(self, number: int) -> bool:
        """Whether a field says that there is no value any more."""
        return 0 < number <= len(self.raw) and self.raw[number - 1] == NULL

    def repetitions(self, number: int) -> int:
        """How often a field is there."""
        found = self.field(number)
        return len(found.split(self.separators.repetition)) if found else 0

    def text(self, number: int, component: int = 1, *, repetition: int = 1, subcomponent: int = 1) -> str:
        """A value, unescaped and without blanks around it; "" for one that is absent or null."""
        s = self.separators
        found = self.field(number)
        for separator, wanted in ((s.repetition, repetition), (s.component, component), (s.subcomponent, subcomponent)):
            parts = found.split(separator)
            found = parts[wanted - 1] if wanted <= len(parts) else ""
        return "" if found == NULL else unescape(found, s).strip()


@dataclass(frozen=True)
class Message:
    """A message: MSH first."""

    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]

    def first(self, name: str) -> Segment:
        """The first segment of a name; an empty one if there is none."""
        empty = Segment(name, (), self.header.separators)
        return next((s for s in self.segments if s.name == name), empty)

    def groups(self, *leaders: str) -> list[list[Segment]]:
        """Segments from each leader to the next; what stands before the first is in none. Leaders are named in their
        order: one that follows an earlier of them (OBR after its ORC) is in that one's group.
        """
        found: list[list[Segment]] = []
        last = len(leaders)
        for segment in self.segments:
            if segment.name in leaders:
                place = leaders.index(segment.name)
                if place <= last:
                    found.append([])
                last = place
            if found:
                found[-1].append(segment)
        return found


def parse(text: str) -> Message:
    """Raises Invalid(`hl7-header`, `hl7-segment`, `hl7-too-long`), which quotes nothing of the message. Segments end
    with CR; LF and CRLF are met in the field.
    """
    if not text.startswith("MSH") or len(text) < 9:
        raise Invalid("hl7-header", "a message begins with MSH, its field separator and encoding characters")
    encoding = text[4 : text.find(text[3], 4)] if text.find(text[3], 4) > 0 else text[4:8]
    marks = text[3] + encoding
    if not 3 <= len(marks) <= 6 or len(set(marks)) != len(marks) or any(c.isalnum() or c in "\r\n\"'" for c in marks):
        raise Invalid("hl7-header", "MSH-1 and MSH-2 give separators that differ")
    defaults = Separators()
    separators = Separators(
        marks[0],
        marks[1],
        marks[2],
        marks[3] if len(marks) > 3 else defaults.escape,
        marks[4] if len(marks) > 4 else defaults.subcomponent,
    )
    lines = [line for line in _LINE_BREAKS.split(text) if line.strip()]
    if len(lines) > SEGMENTS_MAX:
        raise Invalid("hl7-too-long", f"a message has at most {SEGMENTS_MAX} segments")
    segments = []
    for line in lines:
        name, *raw = line.split(separators.field)
        if not _NAME.match(name):
            raise Invalid("hl7-segment", "a segment begins with its name of three characters")
        segments.append(Segment(name, ((separators.field, *raw) if name == "MSH" else tuple(raw)), separators))
    if sum(s.name == "MSH" for s in segments) != 1:
        raise Invalid("hl7-header", "a message has one MSH")
    return Message(tuple(segments))


def unescape(text: str, separators: Separators) -> str:
    """Escape sequences as what they stand for (ch. 2.7); those of formatted text as line breaks and blanks."""
    if separators.escape not in text:
        return text
    named = {
        "F": separators.field,
        "S": separators.component,
        "T": separators.subcomponent,
        "R": separators.repetition,
        "E": separators.escape,
    }
    parts = text.split(separators.escape)
    out, inside = [parts[0]], True
    for n, part in enumerate(parts[1:], 1):
        last = n == len(parts) - 1
        if not inside:
            out.append(part)
            inside = True
        elif last:
            out.append(separators.escape + part)  # one that no other ends is a character of the text
        elif (stands := _stands_for(part, named)) is not None:
            out.append(stands)
            inside = False
        else:
            out.append(separators.escape + part)
    return "".join(out)


def _stands_for(sequence: str, named: dict[str, str]) -> str | None:
    if sequence in named:
        return named[sequence]
    if sequence in ("H", "N") or re.fullmatch(r"[CM][0-9A-Fa-f]{4,6}", sequence):
        return ""  # highlighting; character sets of single words
    if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", sequence):
        found = bytes.fromhex(sequence[1:])
        return found.decode("ascii", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if match := re.fullmatch(r"\.(br|sp|ce|fi|nf|in|ti|sk)([+-]?[0-9]{0,3})", sequence):
        command, count = match[1], abs(int(match[2] or 1)) if match[2] not in ("+", "-") else 1
        return {"br": "\n", "ce": "\n", "sp": "\n" * min(count, 20), "sk": " " * min(count, 80)}.get(command, "")
    return None


def escape(text: str, separators: Separators | None = None) -> str:
    """Text as a value of a field: separators escaped, line breaks as `.br`."""
    s = separators or Separators()
    table = {s.escape: "E", s.field: "F", s.component: "S", s.subcomponent: "T", s.repetition: "R"}
    marked = "".join(f"{s.escape}{table[c]}{s.escape}" if c in table else c for c in text)
    return _LINE_BREAKS.sub(lambda _: f"{s.escape}.br{s.escape}", marked)


Field = str | Sequence[str]
"""Of `segment`: a value, or components."""


def segment(name: str, *fields: Field) -> str:
    """A segment of values that are escaped here, with the usual separators and without empty fields at its end. For
    MSH the first field given is MSH-3.
    """
    s = Separators()
    written = [
        escape(f) if isinstance(f, str) else s.component.join(map(escape, f)).rstrip(s.component) for f in fields
    ]
    while written and not written[-1]:
        written.pop()
    return s.field.join([name, *([s.encoding] if name == "MSH" else []), *written])


def joined(segments: Iterable[str]) -> str:
    """The message."""
    return "".join(f"{s}\r" for s in segments)
