"""A window while it collects records, and after it is closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flagstream.chunk import Partition, Record
from flagstream.dead_letters import DeadLetter, dead_letter, size
from flagstream.errors import PartitionStopped
from flagstream.export.takeover import FixedEnd
from flagstream.export.validation import AVRO_EVENT, Events, validate
from flagstream.kafka.commit_metadata import Plan
from flagstream.outcomes import Reject
from flagstream.sinks.protocol import WindowEncoder
from flagstream.topic_formats.known_schemas import ASK_AGAIN
from flagstream.topic_formats.protocol import Decoder
from flagstream.window import ContentDigest, Manifest, OffsetRange

MOST_UNKNOWN = 100
"""Ids of schemas that the registry does not know, in one window: its plan names them, in up to 11 characters
each, and Kafka keeps 4,096 characters beside an offset.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a window is full, and how dead letters are cut (bytes)."""

    events: int
    bytes: int
    dead_letter_bytes: int
    kinds: Events = "both"


class Shape(Protocol):
    """What gives a window its form: a sink, or the route to it."""

    @property
    def fingerprint(self) -> str:
        """Of the configuration that shapes the window's objects; part of its manifest."""
        ...

    def begin(self, partition: Partition, range_start: int) -> WindowEncoder[Any]:
        """Return the encoder of a new window whose range begins at ``range_start``. No I/O."""
        ...


@dataclass(slots=True)
class ClosedWindow:
    """A window that takes no more records. What it holds is known; its payload is made by :meth:`encode`.
    ``manifest`` is None when none of its records is exported.
    """

    range: OffsetRange
    position: int
    """The offset that was committed, and is again with the plan; ``range.start`` may lie before it."""
    manifest: Manifest | None
    rejects: list[DeadLetter]
    closed_by: str
    bytes: int
    """Memory that it takes."""
    size: int
    """Encoded bytes, dead letters included."""
    plan: Plan | None
    """The plan that this window repeats; None for a new window."""
    encoder: "WindowEncoder[Any] | None"
    """None after it was asked to finish."""
    unknown: tuple[int, ...]
    """Ids in its records that had no schema."""
    payload: Any = None
    next_start: int = 0
    """Where the range of the next window starts: at the end of this one, or earlier if records of this one
    were exported nowhere. So ranges tile.
    """
    held: bool = False
    """Whether the sink held the window before this process took the partition over."""
    refused: bool = False
    """Whether its records become dead letters, because the sink refused the window before."""

    @property
    def events(self) -> int:
        """The number of records that are exported."""
        return self.manifest.records if self.manifest else 0

    def encode(self) -> None:
        """Make the payload, unless it is made. Called in a thread: of thousands of objects it takes seconds.

        What the encoder raises ends the process: it cannot be asked again, its records are gone.
        """
        encoder, self.encoder = self.encoder, None
        if encoder is None or self.manifest is None:
            return
        memory, size = encoder.memory, encoder.size
        self.payload = encoder.finish(self.manifest)
        self.bytes -= max(0, memory - encoder.memory)
        self.size += encoder.size - size


class OpenWindow:
    """Collects the records from ``position`` on. Its range begins at ``range_start``: at the position, or
    earlier if the records before it were exported nowhere.

    ``fixed``: the end was decided before (by a plan, or by an object that the sink holds), and no limit
    closes the window earlier.
    """

    def __init__(
        self,
        shape: Shape,
        partition: Partition,
        position: int,
        range_start: int,
        *,
        limits: Limits,
        sink_name: str,
        fixed: FixedEnd | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self.position = position
        self.range_start = range_start
        self.fixed = fixed
        self.next = position
        self.unknown = set(fixed.plan.unknown if fixed is not None and fixed.plan is not None else ())
        """Ids in the records that have no schema; once in it, for the whole window."""
        self._shape = shape
        self._partition = partition
        self._limits = limits
        self._sink_name = sink_name
        self._decoder = decoder
        self._encoder = shape.begin(partition, range_start)
        self._digest = ContentDigest()
        self._exported = 0
        self._reject_bytes = 0
        self._rejects: list[DeadLetter] = []

    @property
    def size(self) -> int:
        """Encoded bytes so far, dead letters included."""
        return self._encoder.size + self._reject_bytes

    @property
    def memory(self) -> int:
        """Bytes of memory, for the budget."""
        return self._encoder.memory + self._reject_bytes

    @property
    def empty(self) -> bool:
        """Whether it has taken no record yet."""
        return self.next == self.position

    @property
    def plan(self) -> Plan | None:
        """The plan that the window repeats."""
        return self.fixed.plan if self.fixed is not None else None

    @property
    def full_by(self) -> str | None:
        """The limit that the window has reached, if any."""
        if self.fixed is not None:
            return "plan" if self.next >= self.fixed.end else None
        if self._exported + len(self._rejects) >= self._limits.events:
            return "events"
        if len(self.unknown) >= MOST_UNKNOWN:
            return "schemas"
        return "bytes" if self.size >= self._limits.bytes else None

    def room(self, records: Sequence[Record]) -> int:
        """Return how many of ``records`` belong into this window, by its count or its fixed end. Bytes are
        checked between slices.

        For example a window with the fixed end 17 takes two of the records at 15, 16 and 17, and none of
        those at 17 and 18: the end is not part of the range.
        """
        if self.fixed is None:
            room = max(0, self._limits.events - self._exported - len(self._rejects))
            if self._decoder is not None:  # each may name another id
                room = min(room, MOST_UNKNOWN - len(self.unknown))
            return min(len(records), room)
        low, high = 0, len(records)
        while low < high:
            middle = (low + high) // 2
            if int(records[middle].offset() or 0) < self.fixed.end:
                low = middle + 1
            else:
                high = middle
        return low

    def add(self, records: Sequence[Record]) -> None:
        """Take ``records`` (at least one), all of which have room.

        Raises PartitionStopped for an event that cannot be read in the topic's format. Then the window must
        be thrown away.
        """
        validated = validate(records, self._decoder, self.unknown).of_kind(self._limits.kinds)
        plan = self.plan
        if self.fixed is not None and plan is not None and (gone := self.unknown.difference(plan.unknown)):
            window = f"the window [{self.range_start}, {self.fixed.end}) of {self._partition}"
            raise PartitionStopped(
                f"{window} cannot be delivered as it was planned: the registry no longer has the schemas "
                f"{sorted(gone)}. Way out: have it know them under these ids again; it is asked every minute",
                look_again=ASK_AGAIN,
            )
        for reject in validated.rejects:
            if reject.reason == AVRO_EVENT:
                raise PartitionStopped(
                    f'{self._partition}: topics.output_format is "json", but the record at offset '
                    f"{records[reject.index].offset()} is an event in Avro. Way out: export what is left of "
                    'them with output_format = "avro", which takes both, and then change it'
                )
            self._reject(records[reject.index], reject)
        values, kept = validated.values, validated.records
        if values:
            rejects = self._encoder.add(values, kept)
            if self._decoder is not None:  # the digest is that of what stands in the topic
                values = [record.value() or b"" for record in kept]
            if rejects:
                for reject in rejects:
                    self._reject(kept[reject.index], reject)
                gone = {reject.index for reject in rejects}
                values = [value for index, value in enumerate(values) if index not in gone]
            self._digest.update(values)
            self._exported += len(values)
        self.next = int(records[-1].offset() or 0) + 1

    def end_early(self) -> None:
        """Count the window as full. The rest of its records is gone, and the sink is configured to go on
        without them.
        """
        assert self.fixed is not None
        self.next = self.fixed.end

    def _reject(self, record: Record, reject: Reject) -> None:
        letter = dead_letter(
            self._partition,
            record,
            stage=f"sink.{self._sink_name}",
            reason=reject.reason,
            error=reject.error,
            limit=self._limits.dead_letter_bytes,
        )
        self._rejects.append(letter)
        self._reject_bytes += size(letter.key, letter.value, letter.headers)

    def close(self, closed_by: str, topic_id: str) -> ClosedWindow:
        """Return what the window holds; it takes no more. Cheap, since this runs on the event loop."""
        bounds = OffsetRange(self._partition, self.range_start, self.next)
        manifest = None
        if self._exported:
            digest = self._digest.hexdigest()
            manifest = Manifest(bounds, self._exported, digest, self._shape.fingerprint, topic_id)
        return ClosedWindow(
            bounds,
            self.position,
            manifest,
            self._rejects,
            closed_by,
            self.memory,
            self.size,
            self.plan,
            self._encoder if manifest is not None else None,
            tuple(sorted(self.unknown)),
        )
