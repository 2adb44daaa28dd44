"""Templates of reports: which suit a study, the most fitting first."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("texts") / "templates.toml"
LANGUAGES = ("ar", "en")
_BLANK = re.compile(r"\[[^\[\]\n]{0,200}\]")


@dataclass(frozen=True)
class Text:
    """A template in one language."""

    title: str
    findings: str
    impression: str


@dataclass(frozen=True)
class Template:
    """A report to begin with."""

    key: str
    modalities: frozenset[str]
    body_parts: frozenset[str]
    words: tuple[str, ...]
    texts: Mapping[str, Text]

    def suits(self, modalities: Iterable[str], body_parts: Iterable[str], description: str) -> int:
        """How well; 0: it is for another kind of device."""
        if not self.modalities & set(modalities):
            return 0
        said = description.casefold()
        here = bool(self.body_parts & {p.upper().replace(" ", "") for p in body_parts})
        return 1 + 4 * here + 2 * any(w in said for w in self.words)


def load(path: Path = FILE) -> tuple[Template, ...]:
    """All of a file. Raises KeyError, ValueError for one that is not whole."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))["template"]
    return tuple(_template(t) for t in found)


def _template(said: Mapping[str, Any]) -> Template:
    def text(language: str) -> Text:
        return Text(*(said[language][n].strip() for n in ("title", "findings", "impression")))

    return Template(
        said["key"],
        frozenset(said["modalities"]),
        frozenset(said["body_parts"]),
        tuple(w.casefold() for w in said["words"]),
        {language: text(language) for language in LANGUAGES},
    )


def fitting(
    templates: Sequence[Template], modalities: Iterable[str], body_parts: Iterable[str], description: str
) -> list[Template]:
    """Those for a study's devices, the most fitting first."""
    of, parts = tuple(modalities), tuple(body_parts)
    scored = [(t.suits(of, parts, description), t) for t in templates]
    return [t for score, t in sorted(scored, key=lambda s: -s[0]) if score]


def blanks(*texts: str) -> list[str]:
    """What is in [brackets] and was not filled in."""
    return [b for text in texts for b in _BLANK.findall(text)]
