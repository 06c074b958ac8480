"""Windows: the ranges of an output partition that a sink delivers together, and the identity of their
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
        """Return the window's id, the same on every try: ``topic-partition-start-end``."""
        return f"{self.partition}-{self.start}-{self.end}"


@dataclass(frozen=True, slots=True)
class OtherwiseNamed(OffsetRange):
    """A range that a sink holds under another name than it would give now, for example in another format:
    another delivery would store it a second time. It is not equal to the same :class:`OffsetRange`.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a window, which travels with each of its objects.

    Two deliveries of the same range are the same window if and only if ``records`` and ``digest`` are equal:
    compressed bytes differ between builds of zlib and are never compared.
    """

    range: OffsetRange
    records: int
    """Exported records; rejected ones are not counted."""
    digest: str
    """:class:`ContentDigest` of the exported records."""
    config: str
    """Fingerprint of the settings that shape the sink's objects (template, format, projection)."""
    topic_id: str = ""
    """The topic's id, or "" if the broker does not report one."""
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
        """Add ``values``, the record values as the topic has them."""
        parts: list[bytes] = []
        for value in values:
            parts.append(len(value).to_bytes(4, "big"))
            parts.append(value)
        self._hash.update(b"".join(parts))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
