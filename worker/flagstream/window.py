"""Windows: the ranges of an output partition that a sink delivers together, and what identifies their
content.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from flagstream.chunk import Partition


@dataclass(frozen=True, slots=True, order=True)
class OffsetRange:
    """The offsets ``[start, end)`` of a partition. The ranges of a partition's windows tile it: no gap, no
    overlap.
    """

    partition: Partition
    start: int
    end: int

    def __str__(self) -> str:
        """The window's id, the same on every try: ``topic-partition-start-end``."""
        return f"{self.partition}-{self.start}-{self.end}"


@dataclass(frozen=True, slots=True)
class OtherwiseNamed(OffsetRange):
    """A range that a sink holds under another name than it would give now, as with another format:
    delivering it again would store it a second time. Not equal to the same :class:`OffsetRange`.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a window says of itself; travels with each of its objects.

    Two deliveries of the same range are the same window if and only if ``records`` and ``digest`` are equal:
    compressed bytes differ between builds of zlib and are never compared.
    """

    range: OffsetRange
    records: int
    """Exported records; rejected ones are not counted."""
    digest: str
    """:class:`ContentDigest` of the exported records."""
    config: str
    """Fingerprint of what shapes the sink's objects (template, format, projection)."""
    topic_id: str = ""
    """The topic's id, where the broker tells it; empty otherwise."""
    path: str = ""
    """In a layout by fields: the part of the object's name that comes from its events."""

    def __str__(self) -> str:
        return f"{self.range} ({self.records} records, {self.digest[:12]})"


class ContentDigest:
    """SHA-256 over the exported records in order, each preceded by its length as four bytes, big-endian.

    It covers the records before format and compression, so it does not depend on how chunks were cut, on the
    format or on a library's version, and anyone can compute it again from the topic.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, values: Iterable[bytes]) -> None:
        """Add ``values``, the record values as they stand in the topic."""
        parts: list[bytes] = []
        for value in values:
            parts.append(len(value).to_bytes(4, "big"))
            parts.append(value)
        self._hash.update(b"".join(parts))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
