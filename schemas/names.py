"""Person names: DICOM PN groups, Arabic folding and search tokens.

Folding serves search only; what is shown is always the original. Names propose a link between files, never make one.
"""

from __future__ import annotations

import re
import unicodedata

_LETTERS = str.maketrans(
    {
        "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا",
        "ى": "ي", "ی": "ي", "ئ": "ي", "ؤ": "و",
        "ة": "ه", "ۀ": "ه", "ک": "ك", "گ": "ك",
        "ـ": None,
    }
)  # fmt: skip
_DIGITS = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "01234567890123456789")
_SEPARATORS = re.compile(r"[\^=\s,;،؛/\\|()\[\]\"'`.*?_-]+")
_PATTERN_SEPARATORS = re.compile(r"[\^=\s,;،؛/\\|()\[\]\"'`._-]+")
"""The same without DICOM's wild cards."""
_WILDCARDS = re.compile(r"[*?]")
_SERVANT = "عبد"
"""عبد is joined to what follows: عبد الله and عبدالله are one name."""

TOKENS_MAX = 24
"""Bound on tokens of one name: a PN has three groups of five components."""
TOKEN_LENGTH_MAX = 64


def ascii_digits(text: str) -> str:
    """Arabic-Indic and Persian digits as ASCII."""
    return text.translate(_DIGITS)


def fold(text: str) -> str:
    """One spelling for all: no case, no diacritics, no tatweel, one alef, yeh, teh marbuta as heh, ASCII digits."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return ascii_digits(bare.translate(_LETTERS)).casefold()


def fold_tokens(text: str) -> list[str]:
    """The folded words of a text in their order, عبد joined to the next."""
    tokens: list[str] = []
    servant = False
    for word in _SEPARATORS.split(fold(text)):
        if not word:
            continue
        if servant:
            tokens[-1] = _SERVANT + word
            servant = False
        else:
            tokens.append(word)
            servant = word == _SERVANT
    return [t[:TOKEN_LENGTH_MAX] for t in tokens]


def name_tokens(person_name: str) -> tuple[str, ...]:
    """Distinct search tokens over all component groups of a PN, sorted; at most TOKENS_MAX.

    Groups (alphabetic=ideographic=phonetic) are folded apart, so that عبد at the end of one does not join the next.
    """
    found = {t for group in person_name.split("=") for t in fold_tokens(group)}
    return tuple(sorted(found)[:TOKENS_MAX])


def pattern_words(pattern: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a PN pattern (`*`, `?`) says of the names it matches: (tokens they have, starts of tokens they have).

    Every name that matches has these among its `name_tokens`. Nothing is said by a word that begins with a wild card,
    nor by one that follows a word with a wild card: that one may be a عبد which joins it.
    """
    whole: list[str] = []
    starts: list[str] = []
    for group in pattern.split("="):
        words = [w for w in _PATTERN_SEPARATORS.split(group) if w]
        wild_before = False
        while words:
            word = words.pop(0)
            if fold(word) == _SERVANT and words:
                word += words.pop(0)
            head, *rest = _WILDCARDS.split(word, maxsplit=1)
            token = fold(head)[:TOKEN_LENGTH_MAX]
            if token and not wild_before:
                # A servant at a group's end may join what follows it in the name.
                (starts if rest or token == _SERVANT else whole).append(token)
            wild_before = bool(rest)
    return tuple(whole), tuple(starts)


def fold_group(person_name_group: str) -> str:
    """A component group folded but with its `^` kept, for matching of a whole PN value against a pattern."""
    parts = (" ".join(fold_tokens(p)) for p in person_name_group.split("^"))
    return "^".join(parts).rstrip("^")
