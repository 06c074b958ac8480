"""Zstandard frames (RFC 8878) that are written incrementally, with their manifest in a skippable frame after
them.

``zstd -t``, ``zstdcat`` and libraries that follow the specification pass over skippable frames, but some
(Polars, two calls of python-zstandard) stop or fail at one that comes first. So it comes last. Layout::

    28 b5 2f fd …  content, one frame with  |  50 2a 4d 18  LENGTH  manifest as JSON  SIZE
    magic          a checksum at its end    |  magic

LENGTH and SIZE are four bytes each, little-endian: the bytes after LENGTH, and those of the whole skippable
frame, by which it is found from the end of the file. Former versions put the frame first, without SIZE;
their files are recognised for ever.

The match window is 256 KiB and the search tables have 2^17 entries at every level: events resemble their
neighbours, so more memory gains little. *Measured* at levels 3 and 9: a compressor takes 1.5 and 1.1 MiB, by
default 3 and 14, and stores 23 bytes of a 207-byte event instead of 24 and 26 (random keys).
"""

import os
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO

from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.formats.protocol import EncodedObject
from flagstream.window import Manifest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SKIPPABLE = 0x184D2A50
"""The first of the sixteen magic numbers of skippable frames (RFC 8878, section 3.1.2)."""
_FRAME_HEADER = struct.Struct("<II")
_FRAME_SIZE = struct.Struct("<I")
_CHECKSUM_SIZE = 4
_FRAME_MAX = 1 << 16
"""Most bytes that are read of a foreign file. A manifest takes about 300 bytes plus topic and path, far
fewer.
"""

_WINDOW_LOG = 18
_TABLE_LOG = 17
_STEP = 1 << 16
_STATE = 1536 * 1024
"""Bytes that a compressor takes besides its output, at levels 1 to 12; *measured*."""


class Zstd:
    """One object's text, compressed piece by piece, with the manifest's frame at its end if it is
    ``described``.

    The compressor is fed in steps of 64 KiB: where it cuts its blocks may depend on how the text arrives.
    """

    def __init__(self, level: int, *, described: bool = True) -> None:
        self._described = described
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
        """Bytes of the output, of text that waits for its step, and of the compressor, which allocates
        when it gets text.
        """
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
        """Return the whole object in pieces; the last piece of text ends with its checksum. It is called
        once.
        """
        self._keep(self._compressor.compress(self._waiting) + self._compressor.flush())
        return (*self._parts, footer(manifest)) if self._described else tuple(self._parts)

    def _keep(self, compressed: bytes) -> None:
        if compressed:
            self._parts.append(compressed)
            self.size += len(compressed)


def footer(manifest: Manifest) -> bytes:
    """Return the skippable frame for the end of a file."""
    text = manifest_json(manifest)
    length = len(text) + _FRAME_SIZE.size
    return _FRAME_HEADER.pack(_SKIPPABLE, length) + text + _FRAME_SIZE.pack(_FRAME_HEADER.size + length)


def read_manifest(file: BinaryIO) -> Manifest | None:
    """Return the manifest in a file of ours; None if the file is foreign or was cut short."""
    return _found(file)[0]


def _found(file: BinaryIO) -> tuple[Manifest | None, int]:
    """Return the manifest in a file, and where its content ends."""
    end = file.seek(0, os.SEEK_END)
    manifest, size = _at_the_end(file, end)
    return (manifest, end - size) if manifest else (_in_front(file), end)


def _at_the_end(file: BinaryIO, end: int) -> tuple[Manifest | None, int]:
    file.seek(max(0, end - _FRAME_SIZE.size))
    last = file.read()
    size = _FRAME_SIZE.unpack(last)[0] if len(last) == _FRAME_SIZE.size else 0
    if not _FRAME_HEADER.size + _FRAME_SIZE.size <= size <= min(end, _FRAME_MAX):
        return None, 0
    file.seek(end - size)
    frame = file.read(size)
    if _FRAME_HEADER.unpack_from(frame) != (_SKIPPABLE, size - _FRAME_HEADER.size):
        return None, 0
    return parse_manifest(frame[_FRAME_HEADER.size : -_FRAME_SIZE.size]), size


def _in_front(file: BinaryIO) -> Manifest | None:
    """Return the manifest as former versions wrote it."""
    file.seek(0)
    start = file.read(_FRAME_MAX)
    if len(start) < _FRAME_HEADER.size:
        return None
    magic, length = _FRAME_HEADER.unpack_from(start)
    return parse_manifest(start[_FRAME_HEADER.size :][:length]) if magic == _SKIPPABLE else None


def compare(file: BinaryIO, ours: EncodedObject) -> str | None:
    """:meth:`flagstream.formats.protocol.Format.compare` for one compressed object of ours."""
    found, end = _found(file)
    if found is None:
        return "it does not say what it holds: it is cut short, or not a file of ours"
    if different := difference(ours.manifest, found):
        return different
    # The checksum of the text: a copy that was cut short or changed does not end with it.
    last = ours.parts[-2] if ours.parts[-1] == footer(ours.manifest) else ours.parts[-1]
    file.seek(max(0, end - _CHECKSUM_SIZE))
    if file.read(_CHECKSUM_SIZE) != last[-_CHECKSUM_SIZE:]:
        return "it is cut short or was changed: it ends with another checksum"
    return None


def decompress(data: bytes) -> bytes:
    """Return the text of an object of ours."""
    return zstd.decompress(data)
