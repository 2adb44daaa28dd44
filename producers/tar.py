"""The plain tar of a pack (POSIX.1-2001 pax interchange over ustar): bytes of headers and padding, nothing else.

A member is a header, the file and zeros up to the next block; two blocks of zeros end the archive. Everything here is a
function of its arguments, so the same members give the same archive.
"""

from __future__ import annotations

from schemas.errors import Invalid

BLOCK = 512
END = bytes(2 * BLOCK)
"""End of an archive."""
USTAR_SIZE_MAX = 8**11 - 1
"""The largest size that eleven octal digits can say (8 GiB - 1)."""
PAX_HEADER_LENGTH = 3 * BLOCK
"""Length of `pax_header`, whatever it says: known before the size of the file is."""
NAME_LENGTH_MAX = 100

_PAX_RECORD_LENGTH = 64


def padding(size: int) -> bytes:
    """Zeros that fill the last block of a file of `size` bytes."""
    return bytes(-size % BLOCK)


def header(name: str, size: int, mtime: int) -> bytes:
    """One block for a regular file of `size` bytes (at most USTAR_SIZE_MAX), `mtime` in seconds since 1970."""
    if size > USTAR_SIZE_MAX:
        raise Invalid("tar-size", "a size that a ustar header cannot hold")
    return _block(name, size, mtime, b"0")


def pax_header(name: str, size: int, mtime: int) -> bytes:
    """Three blocks: an extended header that says the size in decimal, its record, and the file's own header."""
    record = _pax_record("size", str(size))
    extended = _block("PaxHeaders/" + name[:64], len(record), mtime, b"x")
    plain = _block(name, min(size, USTAR_SIZE_MAX), mtime, b"0")
    return extended + record + padding(len(record)) + plain


def _pax_record(keyword: str, value: str) -> bytes:
    # "%d %s=%s\n", its own length included; padded with zeros in front of the number so that the length is fixed.
    text = f"{_PAX_RECORD_LENGTH} {keyword}="
    return (text + value.rjust(_PAX_RECORD_LENGTH - len(text) - 1, "0") + "\n").encode()


def _block(name: str, size: int, mtime: int, kind: bytes) -> bytes:
    encoded = name.encode("ascii")
    if not encoded or len(encoded) > NAME_LENGTH_MAX:
        raise Invalid("tar-name", "a name that a ustar header cannot hold")
    fields = b"".join(
        (
            encoded.ljust(100, b"\0"),
            b"0000644\0",  # mode
            b"0000000\0",  # uid
            b"0000000\0",  # gid
            b"%011o\0" % size,
            b"%011o\0" % mtime,
            b"        ",  # the checksum counts as blanks while it is made
            kind,
            bytes(100),  # linkname
            b"ustar\x0000",
            bytes(32 + 32),  # uname, gname
            b"0000000\x000000000\0",  # device numbers
            bytes(155 + 12),  # prefix, and the rest of the block
        )
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]
