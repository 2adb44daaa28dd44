"""Corrected attributes put into a dataset in Explicit VR Little Endian (PS3.5 §7.1.2), byte by byte. Pure.

Only elements that a correction names change; everything else, and all that lies behind them, is the input's. Text
beyond ASCII is written in the dataset's own Specific Character Set if that has it, else in one that is added to it by
code extension (PS3.5 §6.1.2.5), so that no other text has to be touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from struct import error as StructError

from schemas.corrections import BY_TAG
from schemas.errors import Invalid

CHARACTER_SET = 0x00080005
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_DEPTH_MAX = 128

_head = Struct("<HH2sH").unpack_from
_short = Struct("<HH2sH").pack
_long = Struct("<I").unpack_from
_item = Struct("<HHI").unpack_from

_WHOLE = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}
# Defined term with code extension → codec of its right half, escape sequence that designates it to G1 (PS3.3 Table
# C.12-3). The first that has all characters is taken.
_EXTENSIONS = {"100": ("latin-1", b"\x1b-A"), "127": ("iso8859_6", b"\x1b-G")}


def patched(prefix: memoryview, edits: Mapping[str, str], *, whole: bool) -> tuple[bytes, int] | None:
    """(new bytes, how many of the old ones they stand for) of a dataset that begins with `prefix`, or is it (`whole`).

    None when `prefix` ends before all of the elements have been passed. Raises Invalid(`not-patchable`) for a dataset
    that cannot be read.
    """
    try:
        return _patched(prefix, edits, whole)
    except (StructError, UnicodeEncodeError) as e:
        raise Invalid("not-patchable", "the stored dataset cannot be corrected") from e


def _patched(view: memoryview, edits: Mapping[str, str], whole: bool) -> tuple[bytes, int] | None:
    wanted = {int(tag, 16): tag for tag in edits}
    last = max(*wanted, CHARACTER_SET) if wanted else CHARACTER_SET
    kept: list[tuple[int, memoryview]] = []
    charset, pos = "", 0
    while True:
        if whole and len(view) - pos < 8:
            break  # the end, or padding
        if len(view) - pos < 8 or (view[pos + 4 : pos + 6] in _LONG and len(view) - pos < 12):
            return None
        tag, start, length = _element(view, pos)
        if tag > last:
            break
        end = _skip(view, start) if length == _UNDEFINED else start + length
        if end is None or end > len(view):
            return None
        if tag == CHARACTER_SET:
            charset = bytes(view[start:end]).decode("latin-1").strip(" \0")
        kept.append((tag, view[pos:end]))
        pos = end
    terms, texts = _encoded(charset, {tag: edits[name] for tag, name in wanted.items()})
    new = {tag: _written(tag, BY_TAG[wanted[tag]].vr.encode(), text) for tag, text in texts.items()}
    if terms != charset:
        new[CHARACTER_SET] = _written(CHARACTER_SET, b"CS", terms.encode("ascii"))
    pieces = [(tag, bytes(data)) for tag, data in kept if tag not in new] + list(new.items())
    return b"".join(data for _, data in sorted(pieces, key=lambda p: p[0])), pos


def _element(view: memoryview, pos: int) -> tuple[int, int, int]:
    """(tag, where its value begins, its length)."""
    group, number, vr, length = _head(view, pos)
    if vr in _LONG:
        return group << 16 | number, pos + 12, _long(view, pos + 8)[0]
    return group << 16 | number, pos + 8, length


def _skip(view: memoryview, pos: int) -> int | None:
    """Where a value of undefined length ends, its delimiter included; None if `view` ends before."""
    inside: list[bool] = [False]
    """Of each open sequence whether an item of it is open."""
    while pos + 8 <= len(view):
        group, number, length = _item(view, pos)
        tag = group << 16 | number
        if tag in (_ITEM, _SEQUENCE_END, _ITEM_END):
            pos += 8
            if tag == _ITEM_END:
                inside[-1] = False
            elif tag == _SEQUENCE_END:
                inside.pop()
                if not inside:
                    return pos
            elif length == _UNDEFINED:
                inside[-1] = True
            else:
                pos += length
            continue
        if not inside[-1] or len(inside) > _DEPTH_MAX:
            raise Invalid("not-patchable", "the stored dataset cannot be corrected")
        if pos + 12 > len(view):
            return None
        _, start, length = _element(view, pos)
        if length == _UNDEFINED:
            inside.append(False)
            pos = start
        else:
            pos = start + length
    return None


def _written(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) & 1)
    return _short(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


# ------------------------------------------------------------------------------------------------ character sets


def _encoded(charset: str, texts: Mapping[int, str]) -> tuple[str, dict[int, bytes]]:
    """(Specific Character Set, values in it)."""
    beyond = {c for t in texts.values() for c in t if not c.isascii()}
    if not beyond:
        return charset, {tag: t.encode("ascii") for tag, t in texts.items()}
    first, *others = (t.strip() for t in charset.split("\\"))
    if codec := _WHOLE.get(first):
        return charset, {tag: t.encode(codec) for tag, t in texts.items()}
    alone = _EXTENSIONS.get(first.removeprefix("ISO_IR ")) if first.startswith("ISO_IR ") and not others else None
    if alone and _has(alone[0], beyond):
        return charset, {tag: t.encode(alone[0]) for tag, t in texts.items()}
    needed = [n for n, (codec, _) in _EXTENSIONS.items() if any(_has(codec, {c}) for c in beyond)]
    if first == "ISO_IR 6":
        first = ""
    terms = [t.replace("ISO_IR ", "ISO 2022 IR ") for t in (first, *others)]
    terms += [term for n in needed if (term := f"ISO 2022 IR {n}") not in terms]
    return "\\".join(terms), {tag: b"".join(_escaped(t)) for tag, t in texts.items()}


def _has(codec: str, characters: set[str]) -> bool:
    try:
        "".join(characters).encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> Iterator[bytes]:
    """A value with escapes; delimiters of a person's name end what was designated (PS3.5 §6.1.2.5.3)."""
    now = ""
    for character in text:
        if character.isascii():
            if character in "^=":
                now = ""
            yield character.encode("ascii")
            continue
        if not now or not _has(_EXTENSIONS[now][0], {character}):
            now = next((n for n, (codec, _) in _EXTENSIONS.items() if _has(codec, {character})), "")
            if not now:
                raise Invalid("not-patchable", "a corrected value cannot be written in a character set of DICOM")
            yield _EXTENSIONS[now][1]
        yield character.encode(_EXTENSIONS[now][0])
