"""What names sound like, across scripts: محمد, Mohamed and Muhammad have one key. Pure.

A key is the consonants of a word as Egyptians write them in Latin letters. It only finds candidates: `alike` looks at
the vowels too, which tell Hassan from Hussein, and serves search and proposals, never an exact match. The rules:
- ت ط t, ث س ص th s, ج g j dj, ح ه h, خ kh, د ض d, ذ ز ظ z, ش sh ch, غ gh, ف v ph, ق ك q k c, ب p b: one letter each
- vowels, ع and hamza are left out, but the first sound of a word is kept (a for any vowel and ع, w, y), and a long
  u or a w behind the second consonant is: it is what tells Mahmoud from Mohamed
- doubled letters are one; ة and an h at the end are left out; El-, Al- and ال go where two consonants stay
- Abd, Abu and the article are read with the word behind them, `…eldin` is a word of its own
- digits of chat spelling: 2 and 3 as vowels, 5 kh, 7 h
A glottal stop for ق (Aref for قارف) is not known, nor names that are translated (George, جرجس).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from schemas.names import COMMON_SHARDS, COMMON_WORDS, TOKENS_MAX, fold_tokens

SOUND = "~"
"""In front of a key among the tokens of names: no folded word begins so."""
PREFIX_LEAST = 2
"""Consonants below which a beginning says nothing."""

_ARABIC = re.compile("[\u0621-\u064a]")
_CONSONANTS = {
    **dict(zip("بپتطثجچحهخدضذرزظسصشغفڤقكلمن", "bbttsgghhxddzrzzsscqffkklmn", strict=True)),
    **dict(zip("bpvfghjkqlmnrstdzcx", "bbffghgkklmnrstdzkK", strict=True)),
}
"""Letter → sound; c is sh, x is kh, q is gh, and K is ks."""
_DIGRAPHS = {"sh": "c", "ch": "c", "kh": "x", "gh": "q", "th": "s", "ph": "f", "ck": "k", "dj": "g"}
_CHAT = str.maketrans({"2": "a", "3": "a", "5": "kh", "7": "h", **dict.fromkeys("014689", None)})
_SOFT = re.compile("c(?=[eiy])")
_SERVANT = re.compile("^abd[aeou]{0,2}l")
_SERVANTS = "abdl"
_FAITH = re.compile("^(.{3,}?)(?:[aeu][ld](d(?:i|ee|ei)n)|ال(دين))$")
_ARTICLE = re.compile("^(?:[aeiou]l(?!l)|ال(?!ل))(.+)$")
_JOINED = frozenset("abd abdel abdul abdal abdol abo abu abou aboul abul el al ul ابو ال".split())
_NOBODY = frozenset(("الله", "allah"))
"""Stands in many names, and would sound like Ali."""
_SPELLINGS = {
    spelt: heard
    for heard, all_of_them in {
        "yosef": "yusuf yousuf yusof youssuf yossouf joseph josef",
        "betres": "botros boutros butros botrous",
        "merkes": "morcos marcos morkos markos marcus",
        "kerels": "kyrillos kirollos kerolos kerollos kyrollos kirolos",
        "esehak": "ishaq ishak eshak eshaq is7ak isaac",
        "fetehy": "fathy fathi fathy fat7y",
        "feteheya": "fathia fathya fatheya fathiya",
    }.items()
    for spelt in all_of_them.split()
}
"""What the rules would read otherwise: short vowels that are written like long ones, letters that only meet."""
_SPACES = re.compile(r"[\s^=]+")
_STARS_AT_END = re.compile(r"(?<=[^\s^=*])\*+(?=[\s^=]|$)")
_BACK, _FRONT, _LONG_FRONT = re.compile("[ouwو]"), re.compile("[eiy]"), re.compile("ei|ai|ay|ey|ee")


@dataclass(frozen=True)
class Spoken:
    """A word of a name, as it is heard."""

    words: tuple[str, ...]
    """The folded words it was read from."""
    key: str
    """Empty: no sound is known, it is only what it is written."""
    gaps: tuple[str, ...] = ()
    """The vowels behind each consonant, as written."""
    arabic: bool = False


@lru_cache(maxsize=1 << 14)
def spoken(group: str) -> tuple[Spoken, ...]:
    """The words of a component group (one without `=`)."""
    found: list[Spoken] = []
    held: list[str] = []
    words = fold_tokens(group)
    for n, word in enumerate(words):
        held.append(word)
        if word in _JOINED and n + 1 < len(words):
            continue
        joined = "".join(held)
        faith = _FAITH.match(joined)
        parts = [p for p in faith.groups() if p] if faith else [joined]
        found += [_heard(tuple(held), p) for p in parts]
        held = []
    return tuple(found)


def sound_tokens(person_name: str) -> tuple[str, ...]:
    """Distinct keys over all component groups of a PN, as tokens; sorted, at most TOKENS_MAX."""
    found = {SOUND + s.key for group in person_name.split("=") for s in spoken(group) if s.key}
    return tuple(sorted(found)[:TOKENS_MAX])


@dataclass(frozen=True)
class Asked:
    """A word of a pattern: what it sounds like, and whether it may be the beginning of a name."""

    heard: Spoken
    begins: bool

    @property
    def token(self) -> str:
        """The token of its key; empty: none."""
        return self.heard.key and SOUND + self.heard.key


def asked(pattern: str) -> tuple[Asked, ...]:
    """The words of a PN pattern; none where a wild card stands elsewhere than at the end of a word."""
    stars = {w for raw in _SPACES.split(pattern) if raw.endswith("*") for w in fold_tokens(raw)[-1:]}
    plain = _STARS_AT_END.sub("", pattern)
    if "*" in plain or "?" in plain:
        return ()
    heard = [s for group in plain.split("=") for s in spoken(group)]
    return tuple(Asked(s, s.words[-1] in stars and len(s.gaps) >= PREFIX_LEAST) for s in heard)


def alike(one: Spoken, other: Spoken, *, begins: bool = False) -> bool:
    """Whether two words may be the same name spoken; `begins`: `one` may be its beginning. Two Arabic words are
    compared as they are written, folded.
    """
    if not one.key or (one.arabic and other.arabic):
        return False
    fits = other.key.startswith(one.key) if begins else other.key == one.key
    return fits and not any(_apart(a, b, one.arabic, other.arabic) for a, b in _inner(one, other))


def _inner(one: Spoken, other: Spoken) -> list[tuple[str, str]]:
    """The gaps that both have, without the last one: how a word ends is written in too many ways."""
    return list(zip(one.gaps[:-1], other.gaps[:-1], strict=False))


def _apart(one: str, other: str, one_arabic: bool, other_arabic: bool) -> bool:
    """Whether the vowels of one place cannot be the same: Arabic writes long ones alone."""
    if one_arabic or other_arabic:
        arabic, latin = (one, other) if one_arabic else (other, one)
        if "ي" in arabic:
            return not _FRONT.search(latin)
        return "ع" not in arabic and bool(_LONG_FRONT.search(latin))
    a, b = sorted((one, other), key=lambda gap: bool(_LONG_FRONT.search(gap)))
    if _LONG_FRONT.search(b):
        return set(a) == {"a"}
    return {_kind(a), _kind(b)} == {"back", "front"}


def _kind(gap: str) -> str:
    back, front = _BACK.search(gap), _FRONT.search(gap)
    return "" if "a" in gap or bool(back) == bool(front) else "back" if back else "front"


def _heard(words: tuple[str, ...], word: str) -> Spoken:
    arabic = _ARABIC.search(word) is not None
    if word in _NOBODY or (not arabic and not word.isascii()) or word.isdigit():
        return Spoken(words, "", arabic=arabic)
    sounds = _sounds(word, arabic=arabic)
    if article := _ARTICLE.match(word):
        rest = _sounds(article[1], arabic=arabic)
        sounds = rest if sum(s not in "awy" for s, _ in rest) >= PREFIX_LEAST else sounds
    return Spoken(words, _key(sounds), tuple(gap for _, gap in sounds), arabic)


def _key(sounds: Sequence[tuple[str, str]]) -> str:
    last = len(sounds) - 1
    servant = "".join(s for s, _ in sounds[: len(_SERVANTS)]) == _SERVANTS
    first = len(_SERVANTS) if servant else 0
    key = ""
    for n, (sound, gap) in enumerate(sounds):
        # Abdo and عبده, Amr and عمرو: a vowel at the end is not heard
        heard = gap.rstrip("ouwو") if n == last else gap
        key += sound + ("w" if n > first and _BACK.search(heard) else "")
    return key


def _sounds(word: str, *, arabic: bool) -> list[tuple[str, str]]:
    """(consonant, vowels behind it) of a word."""
    letters = word if arabic else _latin(word)
    found: list[tuple[str, str]] = []
    before = ""
    n = 0
    while n < len(letters):
        pair = "" if arabic else letters[n : n + 2]
        letter = pair if pair in _DIGRAPHS else letters[n]
        sound = _DIGRAPHS.get(letter) or _CONSONANTS.get(letter, "")
        n += len(letter)
        if sound and not (letter == before and (letter == "ل" or not arabic)):
            found += [(s, "") for s in ("ks" if sound == "K" else sound)]
        elif not sound and not found:
            # ياسر and Yasser begin with a consonant, إيمان and Iman do not
            first = {"و": "w", "w": "w", "ي": "y", "y": "y"}.get(letter, "a")
            found.append((first, "" if arabic else letter))
        elif not sound and letter != "'":
            found[-1] = (found[-1][0], found[-1][1] + letter)
        before = letter
    ends = letters[-1:] in ("h", "ه", "ح") and found[-1] == ("h", "")
    if ends and (len(found) > PREFIX_LEAST or (len(found) == PREFIX_LEAST and found[0][0] == "a")):
        found.pop()
        found[-1] = (found[-1][0], found[-1][1] + letters[-1])
    return found


def _latin(word: str) -> str:
    word = _SPELLINGS.get(word, word).translate(_CHAT)
    return _SOFT.sub("s", _SERVANT.sub("abdel", re.sub("^chr", "kr", word)))


COMMON_SOUNDS = frozenset(t for word in COMMON_WORDS for t in sound_tokens(word))
COMMON_SOUND_SHARDS = 8
"""A key's month holds all spellings of a name."""


def shards_of(token: str) -> int:
    """Over how many partitions a token's month is spread."""
    if token.startswith(SOUND):
        return COMMON_SOUND_SHARDS if token in COMMON_SOUNDS else 1
    return COMMON_SHARDS if token in COMMON_WORDS else 1
