"""The protocol of a format: it turns records into the bytes of one object, and recognises a stored object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from flagstream.chunk import Partition, Record
from flagstream.outcomes import Reject
from flagstream.window import Manifest


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """The bytes of one object, in pieces so that a window is never in memory twice.

    ``manifest`` describes the object: the range of its window, and count, digest and path of its own records.
    """

    parts: Sequence[bytes]
    manifest: Manifest

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class ObjectEncoder(Protocol):
    """Encodes the records of one object as they come. It does no I/O. It runs on the event loop, except
    ``finish``, which runs in a thread.

    The same records give the same bytes in every process, however the calls of ``add`` are cut.
    """

    @property
    def size(self) -> int:
        """Bytes of encoded, compressed output so far; 0 at first, and it never shrinks."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes: its output, events that wait to be encoded, a compressor's state."""
        ...

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        """Add events, each as JSON text. Return those that the format cannot hold; they leave no trace."""
        ...

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        """Return the object's bytes, with ``manifest`` inside if the format has a place for it. It is
        called once.
        """
        ...


class Format(Protocol):
    """A format as it is configured. It is immutable, and equal to another one with the same settings."""

    @property
    def name(self) -> str:
        """``{{ .Format }}`` in names, such as ``jsonl``."""
        ...

    @property
    def extension(self) -> str:
        """``{{ .Extension }}`` in names, such as ``jsonl.gz``."""
        ...

    @property
    def content_type(self) -> str:
        """Return the media type of an object."""
        ...

    @property
    def shape(self) -> Sequence[str]:
        """Return everything that changes an object's content, for the sink's fingerprint."""
        ...

    def begin(self, partition: Partition) -> ObjectEncoder:
        """Return the encoder of a new object."""
        ...

    def compare(self, file: BinaryIO, ours: EncodedObject) -> str | None:
        """Return how the stored object in ``file`` (seekable) differs from ``ours``, for people; None if they
        are the same.

        The manifest in the stored object decides, never its compressed bytes, which differ between builds.
        """
        ...

    def show(self, parts: Sequence[bytes]) -> str:
        """Return the first record of an encoded object as text for people."""
        ...
