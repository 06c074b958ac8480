"""What a format is: how records become the bytes of one object, and how a stored object is known again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from flagstream.chunk import Partition, Record
from flagstream.outcomes import Reject
from flagstream.window import Manifest


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """The bytes of one object, in pieces so that a window is never in memory twice.

    ``manifest`` says what the object holds: the range of its window, and count, digest and path of its own
    records.
    """

    parts: Sequence[bytes]
    manifest: Manifest

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class ObjectEncoder(Protocol):
    """Encodes the records of one object as they come. No I/O; called on the event loop, but for ``finish``,
    which has a thread.

    The same records give the same bytes however the calls of ``add`` are cut, in every process.
    """

    @property
    def size(self) -> int:
        """Bytes of encoded, compressed output so far; 0 at first, never shrinks."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of memory it takes: its output, what waits to be encoded, a compressor's state."""
        ...

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        """Take further events, JSON text each; rejected ones leave no trace."""
        ...

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        """The object's bytes, with ``manifest`` inside where the format has a place for it. Called once."""
        ...


class Format(Protocol):
    """A format as it is configured. Immutable; equal when the settings are equal."""

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
        """Media type of an object."""
        ...

    @property
    def shape(self) -> Sequence[str]:
        """All that changes an object's content, for the sink's fingerprint."""
        ...

    def begin(self, partition: Partition) -> ObjectEncoder:
        """The encoder of a new object."""
        ...

    def compare(self, file: BinaryIO, ours: EncodedObject) -> str | None:
        """What makes the stored object in ``file`` (seekable) another one than ``ours``, for people; None if
        it is the same.

        Decided by what it says of itself; never by compressed bytes, which differ between builds.
        """
        ...

    def show(self, parts: Sequence[bytes]) -> str:
        """The first record of an encoded object as text for people."""
        ...
