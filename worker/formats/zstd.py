"""Zstandard frames (RFC 8878) that are written incrementally and carry their manifest in a skippable frame in
front.

``zstd -t``, ``zstdcat`` and every library that follows the specification pass over skippable frames. Layout::

    50 2a 4d 18  LENGTH  manifest as JSON  |  28 b5 2f fd …  content, one frame with a checksum at its end
    magic        (little-endian)           |  magic

The match window is 256 KiB and the search tables have 2^17 entries at every level: events resemble their
neighbours, so more memory gains little. *Measured* at levels 3 and 9: a compressor takes 1.5 and 1.1 MiB, by
default 3 and 14, and stores 23 bytes of a 207-byte event instead of 24 and 26 (random keys).
"""

import os
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO

from worker.formats.manifest import difference, manifest_json, parse_manifest
from worker.formats.protocol import EncodedObject
from worker.window import Manifest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SKIPPABLE = 0x184D2A50
"""The first of the sixteen magic numbers of skippable frames (RFC 8878, section 3.1.2)."""
_FRAME_HEADER = struct.Struct("<II")
_CHECKSUM_SIZE = 4
_HEADER_MAX = 1 << 16
"""A manifest takes about 300 bytes plus topic and path; far below this, which bounds what is read of a
foreign file.
"""

_WINDOW_LOG = 18
_TABLE_LOG = 17
_STEP = 1 << 16
_STATE = 1536 * 1024
"""Bytes that a compressor takes besides its output, at levels 1 to 12; *measured*."""


class Zstd:
    """One object's text, compressed piece by piece; the manifest's frame comes last and goes in front.

    The compressor is fed in steps of 64 KiB: where it cuts its blocks may depend on how the text arrives.
    """

    def __init__(self, level: int) -> None:
        parameter = zstd.CompressionParameter
        self._compressor = zstd.ZstdCompressor(
            options={
                parameter.compression_level: level,
                parameter.window_log: _WINDOW_LOG,
                parameter.hash_log: _TABLE_LOG,
                parameter.chain_log: _TABLE_LOG,
                parameter.checksum_flag: 1,
            }
        )
        self._waiting = bytearray()
        self._parts: list[bytes] = []
        self.size = 0
        """Compressed bytes so far."""

    @property
    def memory(self) -> int:
        """The output, what waits for its step, and the compressor, which allocates when it is first fed."""
        return self.size + len(self._waiting) + (_STATE if self.size or self._waiting else 0)

    def write(self, data: bytes) -> None:
        self._waiting += data
        whole = len(self._waiting) - len(self._waiting) % _STEP
        if whole:
            with memoryview(self._waiting) as waiting:
                for at in range(0, whole, _STEP):
                    self._keep(self._compressor.compress(waiting[at : at + _STEP]))
            del self._waiting[:whole]

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        """The whole object in pieces; the last one ends with the checksum of the text. Called once."""
        self._keep(self._compressor.compress(self._waiting) + self._compressor.flush())
        return (header(manifest), *self._parts)

    def _keep(self, compressed: bytes) -> None:
        if compressed:
            self._parts.append(compressed)
            self.size += len(compressed)


def header(manifest: Manifest) -> bytes:
    """The skippable frame that goes in front."""
    text = manifest_json(manifest)
    return _FRAME_HEADER.pack(_SKIPPABLE, len(text)) + text


def read_manifest(first_bytes: bytes) -> Manifest | None:
    """The manifest at the start of a file; None when it is not a file of ours."""
    if len(first_bytes) < _FRAME_HEADER.size:
        return None
    magic, length = _FRAME_HEADER.unpack_from(first_bytes)
    if magic != _SKIPPABLE:
        return None
    return parse_manifest(first_bytes[_FRAME_HEADER.size :][:length])


def compare(file: BinaryIO, ours: EncodedObject) -> str | None:
    """:meth:`worker.formats.protocol.Format.compare` for one compressed object of ours."""
    found = read_manifest(file.read(_HEADER_MAX))
    if found is None:
        return "it is not a file of ours: it does not say what it holds"
    if different := difference(ours.manifest, found):
        return different
    # The checksum of the text: a copy that was cut short or changed does not end with it.
    checksum = ours.parts[-1][-_CHECKSUM_SIZE:]
    file.seek(-_CHECKSUM_SIZE, os.SEEK_END)
    if file.read() != checksum:
        return "it is cut short or was changed: it ends with another checksum"
    return None


def decompress(data: bytes) -> bytes:
    """The text of an object of ours."""
    return zstd.decompress(data)
