"""Person names: DICOM PN groups, Arabic folding and search tokens.

Folding serves search only; what is shown is always the original. Names propose a link between files, never make one.
"""

from __future__ import annotations

import re
import unicodedata
from enum import IntEnum

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
PREFIX_LENGTH = 2
"""Characters of a token that are the partition of the vocabulary by beginnings."""
TRIGRAM_LENGTH = 3
"""The same of the vocabulary by infixes."""


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


def trigrams(token: str) -> list[tuple[str, str]]:
    """Each three characters of a token, and the token from there on."""
    return [(token[i : i + TRIGRAM_LENGTH], token[i:]) for i in range(len(token) - TRIGRAM_LENGTH + 1)]


# Words that more than one name in twelve may have, as folded: their months are spread over partitions. A word that is
# missing here costs no more than a large partition; one must not be added once names are stored under it.
COMMON_WORDS = frozenset(
    "محمد احمد محمود علي حسن حسين ابراهيم مصطفي السيد سيد عبدالله فاطمه"
    " mohamed mohammed mohammad muhammad mohamad ahmed ahmad mahmoud ali hassan hussein ibrahim mostafa elsayed sayed"
    " abdullah abdallah fatma fatima".split()
)
COMMON_SHARDS = 4


class Part(IntEnum):
    """Where in a token a piece of a pattern stands; the more is known, the higher."""

    INSIDE = 1
    START = 2
    WHOLE = 3


def pattern_pieces(pattern: str) -> tuple[tuple[Part, str], ...]:
    """What a PN pattern (`*`, `?`) says of the names it matches: folded pieces that each stand in one of their tokens.

    Every name that matches has each piece in a token of its `name_tokens`, as the whole, at its start or inside.
    """
    found: list[tuple[Part, str]] = []
    for group in pattern.split("="):
        words = [w for w in _PATTERN_SEPARATORS.split(group) if w]
        wild_before = False
        while words:
            word = words.pop(0)
            if fold(word) == _SERVANT and words:
                word += words.pop(0)
            pieces = _WILDCARDS.split(word)
            for n, piece in enumerate(pieces):
                # Behind a word with a wild card a word may be joined to a عبد, so it may stand inside.
                known = Part.INSIDE if n or wild_before else Part.START if len(pieces) > 1 else Part.WHOLE
                folded = [t[:TOKEN_LENGTH_MAX] for t in _SEPARATORS.split(fold(piece)) if t]
                if len(folded) > 1:
                    known = Part.INSIDE  # one character that stands for several words
                elif folded == [_SERVANT]:
                    known = min(known, Part.START)  # at a group's end it may join what follows it in the name
                found += [(known, token) for token in folded]
            wild_before = len(pieces) > 1
    return tuple(found)


def fold_group(person_name_group: str) -> str:
    """A component group folded but with its `^` kept, for matching of a whole PN value against a pattern."""
    parts = (" ".join(fold_tokens(p)) for p in person_name_group.split("^"))
    return "^".join(parts).rstrip("^")
