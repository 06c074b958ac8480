"""The compressions of formats that are plain text: lines go in, the bytes of one object come out."""

import gzip as gzip_tool
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from flagstream.formats import gzip, zstd
from flagstream.formats.protocol import EncodedObject
from flagstream.window import Manifest

TextCompression = Literal["none", "gzip", "zstd"]

SUFFIXES: dict[TextCompression, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_READ_SIZE = 1 << 20


class Output(Protocol):
    """Takes the text of one object, piece by piece."""

    @property
    def size(self) -> int:
        """Return the number of compressed bytes so far."""
        ...

    @property
    def memory(self) -> int:
        """Return the bytes of memory in use: the output and the compressor's state."""
        ...

    def write(self, data: bytes) -> None: ...

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        """Return the whole object in pieces, with ``manifest`` in it if there is a place. It is called
        once.
        """
        ...


class TextEncoder:
    """The part of an :class:`~flagstream.formats.protocol.ObjectEncoder` that all formats of plain text
    share.
    """

    def __init__(self, out: Output) -> None:
        self._out = out

    @property
    def size(self) -> int:
        return self._out.size

    @property
    def memory(self) -> int:
        return self._out.memory

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        return self._out.finish(manifest)


class Plain:
    """Text without compression; it has no place for a manifest."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self.size += len(data)

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        return tuple(self._parts)


@dataclass(frozen=True, slots=True)
class Compression:
    """How text is compressed. The level changes neither content nor name.

    ``described``: a zstd object has its manifest in a frame of its own. It is left out if the store keeps the
    manifest beside the object, because some readers do not expect such a frame.
    """

    kind: TextCompression
    level: int
    described: bool = True

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.kind]

    def output(self) -> Output:
        """Return the output of a new object."""
        match self.kind:
            case "gzip":
                return gzip.Deflate(self.level)
            case "zstd":
                return zstd.Zstd(self.level, described=self.described)
        return Plain()

    def content_type(self, plain: str) -> str:
        """Return the media type of an object whose text has the media type ``plain``."""
        return {"none": plain, "gzip": "application/gzip", "zstd": "application/zstd"}[self.kind]

    def compare(self, file: BinaryIO, ours: EncodedObject) -> str | None:
        """As :meth:`flagstream.formats.protocol.Format.compare`."""
        match self.kind:
            case "gzip":
                return gzip.compare(file, ours)
            case "zstd":
                return zstd.compare(file, ours)
        return None if same_bytes(file, ours.parts) else "it holds other bytes than the window"

    def text(self, parts: Sequence[bytes]) -> bytes:
        """Return the text of an encoded object."""
        whole = b"".join(parts)
        match self.kind:
            case "gzip":
                return gzip_tool.decompress(whole)
            case "zstd":
                return zstd.decompress(whole)
        return whole


def same_bytes(file: BinaryIO, parts: Sequence[bytes]) -> bool:
    """Return whether ``file`` holds ``parts`` and nothing else."""
    for part in parts:
        for at in range(0, len(part), _READ_SIZE):
            piece = part[at : at + _READ_SIZE]
            if file.read(len(piece)) != piece:
                return False
    return not file.read(1)
