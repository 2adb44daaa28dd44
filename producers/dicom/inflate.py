"""Deflated Explicit VR Little Endian (PS3.5 §A.5): the whole dataset is one raw deflate stream."""

import zlib
from typing import Final

from producers.dicom.reasons import refuse

INFLATED_BYTES_MAX: Final = 1 << 29


def inflate(deflated: memoryview, marks: set[str], bytes_max: int = INFLATED_BYTES_MAX) -> memoryview:
    """The inflated dataset, of at most `bytes_max` bytes.

    Some writers put a zlib header around the stream: read, and marked. A padding byte behind it is allowed. Raises
    Invalid: `truncated`, `damaged-deflate`, `inflates-too-large`.
    """
    header = deflated[:2].tobytes()
    zlib_header = len(header) == 2 and header[0] & 0x0F == 8 and int.from_bytes(header, "big") % 31 == 0
    # Raw first: a raw stream may look like a zlib header, a zlib header is no raw stream that ends well.
    for wbits in (-zlib.MAX_WBITS, zlib.MAX_WBITS) if zlib_header else (-zlib.MAX_WBITS,):
        inflater = zlib.decompressobj(wbits)
        try:
            dataset = inflater.decompress(deflated, bytes_max)
        except zlib.error:
            continue
        if not inflater.eof:
            raise refuse("inflates-too-large" if len(dataset) >= bytes_max else "truncated")
        if wbits > 0:
            marks.add("zlib-deflate")
        return memoryview(dataset)
    raise refuse("damaged-deflate")
