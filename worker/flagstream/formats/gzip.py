"""gzip members (RFC 1952) that are written incrementally and carry their manifest in the header's extra
field.

``gzip -t``, ``zcat`` and every gzip library read them and skip the field. Layout of the header::

    1f 8b  08  04  00 00 00 00  00  ff   XLEN  'F' 'S'  LEN  manifest as JSON
    magic  |   |   mtime 0      |   |    (XLEN and LEN: two bytes, little-endian; XLEN = LEN + 4)
           |   FLG.FEXTRA       |   OS unknown
           deflate              XFL

Nothing in it depends on host, clock or library, so the same window has the same header everywhere.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.formats.protocol import EncodedObject
from flagstream.window import Manifest

SUBFIELD = b"FS"
"""Our subfield id. It is not a registered one (the list in RFC 1952, section 2.3.1.1, ends with the
author).
"""

_FIXED = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"
_TRAILER = struct.Struct("<II")
TRAILER_SIZE = _TRAILER.size
HEADER_MAX = len(_FIXED) + 2 + 0xFFFF
"""Bytes from the start of a file that always hold its whole extra field."""


def header(manifest: Manifest) -> bytes:
    """Return the member's header. A manifest takes about 300 bytes plus the topic's name (249 at most);
    65,531 would fit.
    """
    text = manifest_json(manifest)
    return _FIXED + struct.pack("<H2sH", len(text) + 4, SUBFIELD, len(text)) + text


def read_manifest(first_bytes: bytes) -> Manifest | None:
    """Return the manifest in a file's first ``HEADER_MAX`` bytes (or all of them); None for a foreign
    file.
    """
    if len(first_bytes) < len(_FIXED) + 2 or first_bytes[:4] != _FIXED[:4]:
        return None
    end = len(_FIXED) + 2 + int.from_bytes(first_bytes[10:12], "little")
    extra, at = first_bytes[12:end], 0
    while at + 4 <= len(extra):
        length = int.from_bytes(extra[at + 2 : at + 4], "little")
        if extra[at : at + 2] == SUBFIELD:
            return parse_manifest(extra[at + 4 : at + 4 + length])
        at += 4 + length
    return None


STATE = 260 * 1024
"""Bytes that zlib's compressor takes (zlib manual, deflateInit2)."""


LAZY_BYTES = 64 * 1024
"""A compressor is made when there is this much to compress: a window may have thousands of small objects."""


class Deflate:
    """The compressed body of one member, written piece by piece; its header is made last and goes first.

    zlib holds some 10 to 60 KB of compressed bytes back until a block is full, so ``size`` lags by them.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._compressor: zlib._Compress | None = None
        self._waiting: list[bytes] = []
        self._crc = 0
        self._plain = 0
        self._parts: list[bytes] = []
        self.size = 0
        """Compressed bytes so far."""

    @property
    def memory(self) -> int:
        """Bytes of the output, and of the text that waits for a compressor or the compressor's state."""
        return self.size + STATE if self._compressor else self._plain

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._plain += len(data)
        if self._compressor is not None:
            self._keep(self._compressor.compress(data))
            return
        self._waiting.append(data)
        if self._plain >= LAZY_BYTES:
            self._compress()

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        """Return the whole member in pieces; the last one ends with the trailer. It is called once."""
        self._keep(self._compress().flush())
        trailer = _TRAILER.pack(self._crc, self._plain & 0xFFFFFFFF)
        return (header(manifest), *self._parts, trailer)

    def _compress(self) -> "zlib._Compress":
        if self._compressor is None:
            self._compressor = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS)
            for data in self._waiting:
                self._keep(self._compressor.compress(data))
            self._waiting = []
        return self._compressor

    def _keep(self, compressed: bytes) -> None:
        if compressed:
            self._parts.append(compressed)
            self.size += len(compressed)


def compare(file: BinaryIO, ours: EncodedObject) -> str | None:
    """:meth:`flagstream.formats.protocol.Format.compare` for one gzip member of ours."""
    found = read_manifest(file.read(HEADER_MAX))
    if found is None:
        return "it is not a file of ours: it does not say what it holds"
    if different := difference(ours.manifest, found):
        return different
    # CRC and length of the uncompressed content: a copy that was cut short or changed does not end with them.
    trailer = ours.parts[-1][-TRAILER_SIZE:]
    file.seek(-len(trailer), os.SEEK_END)
    if file.read() != trailer:
        return "it is cut short or was changed: it ends with another checksum"
    return None
