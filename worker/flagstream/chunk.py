"""Records, partitions, and the chunks in which they travel."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flagstream.memory import Weight

Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """Names a partition of a topic."""

    topic: str
    index: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.index}"


class Record(Protocol):
    """A record as Kafka delivered it; ``confluent_kafka.Message`` satisfies this protocol."""

    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, as fetched.

    The chunk covers the offsets ``[start, end)``: ``end`` is the last record's offset + 1, and ``start`` is
    the end of the chunk before it. So the chunks of a partition join without a hole, although record offsets
    have gaps (transaction markers, aborted records). For example records 5, 6 and 9 fetched at position 4 are
    the chunk ``[4, 10)``.

    ``epoch`` says under which tenure of the partition the records were fetched; work of another epoch commits
    nothing. ``weight`` is the charge of the records in their source's account; the stage that has finished
    with them releases it.
    """

    partition: Partition
    epoch: int
    start: int
    end: int
    records: Sequence[Record]
    weight: Weight = field(default_factory=Weight, compare=False)


@dataclass(frozen=True, slots=True)
class Position:
    """The position at which reading of a partition starts after it was assigned or rewound.

    ``offset`` is the next offset to read; ``committed`` is the offset that the group had committed (None:
    nothing yet), with its ``metadata`` text. The topic held ``[low, high)`` at that moment.
    """

    epoch: int
    offset: int
    committed: int | None = None
    metadata: str = ""
    low: int = 0
    high: int = 0

    @property
    def readable(self) -> bool:
        """Whether the topic holds the records from the committed offset on, if there is one."""
        return self.committed is None or self.low <= self.committed <= self.high
