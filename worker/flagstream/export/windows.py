"""A window while it fills, and when it is closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flagstream.chunk import Partition, Record
from flagstream.dead_letters import DeadLetter, dead_letter, size
from flagstream.errors import PartitionStopped
from flagstream.export.validation import AVRO_EVENT, Events, validate
from flagstream.kafka.commit_metadata import Plan
from flagstream.outcomes import Reject
from flagstream.sinks.protocol import Sink, TransactionalSink, WindowEncoder
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


@dataclass(slots=True)
class ClosedWindow:
    """A window that takes no more records: what it holds is known, what it looks like is not until
    :meth:`encode`. ``manifest`` is None when none of its records is exported.
    """

    sink: "Sink[Any] | TransactionalSink[Any]"
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
    """None once it has been asked to finish."""
    payload: Any = None
    unknown: tuple[int, ...] = ()
    """Ids in its records that had no schema."""

    @property
    def events(self) -> int:
        return self.manifest.records if self.manifest else 0

    def encode(self) -> None:
        """Make the payload, unless it is made. In a thread: of thousands of objects it takes seconds.

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
    """Collects the records from ``position`` on. ``named`` is the start of the range that the window is named
    by:
    the position itself, or earlier when the records before it were exported nowhere.

    ``until``: the end is decided already (a plan, or an object that the sink holds), no limit closes it
    before.
    """

    def __init__(
        self,
        sink: "Sink[Any] | TransactionalSink[Any]",
        partition: Partition,
        position: int,
        named: int,
        *,
        limits: Limits,
        sink_name: str,
        until: int | None = None,
        plan: Plan | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self.sink = sink
        self.partition = partition
        self.position = position
        self.named = named
        self.until = until
        self.plan = plan
        self.next = position
        self.rejected = 0
        self.unknown = set(plan.unknown if plan else ())
        """Ids in the records that have no schema; once in it, for the whole window."""
        self._limits = limits
        self._sink_name = sink_name
        self._decoder = decoder
        self._encoder = sink.begin(partition, named)
        self._digest = ContentDigest()
        self._exported = 0
        self._reject_bytes = 0
        self._rejects: list[DeadLetter] = []

    @property
    def size(self) -> int:
        return self._encoder.size + self._reject_bytes

    @property
    def memory(self) -> int:
        """Bytes of memory, for the budget."""
        return self._encoder.memory + self._reject_bytes

    @property
    def empty(self) -> bool:
        return self.next == self.position

    @property
    def full_by(self) -> str | None:
        """The limit that the window has reached, if any."""
        if self.until is not None:
            return "plan" if self.next >= self.until else None
        if self._exported + self.rejected >= self._limits.events:
            return "events"
        if len(self.unknown) >= MOST_UNKNOWN:
            return "schemas"
        return "bytes" if self.size >= self._limits.bytes else None

    def room(self, records: Sequence[Record]) -> int:
        """How many of ``records`` belong into this window (by count and end; bytes are looked at between
        chunks).
        """
        if self.until is None:
            room = max(0, self._limits.events - self._exported - self.rejected)
            if self._decoder is not None:  # each may name another id
                room = min(room, MOST_UNKNOWN - len(self.unknown))
            return min(len(records), room)
        low, high = 0, len(records)
        while low < high:
            middle = (low + high) // 2
            if int(records[middle].offset() or 0) < self.until:
                low = middle + 1
            else:
                high = middle
        return low

    def add(self, records: Sequence[Record]) -> None:
        """Take ``records`` (at least one), all of which have room.

        Raises PartitionStopped for a record that is an event and cannot be read as what the topic is said to
        be: the window is to be thrown away.
        """
        validated = validate(records, self._decoder, self.unknown).of_kind(self._limits.kinds)
        if self.plan is not None and (gone := self.unknown.difference(self.plan.unknown)):
            raise PartitionStopped(
                f"the window [{self.named}, {self.until}) of {self.partition} cannot be delivered as it was "
                f"planned: the registry no longer has the schemas {sorted(gone)}. Way out: have it know them "
                "under these ids again; it is asked every minute",
                look_again=ASK_AGAIN,
            )
        for reject in validated.rejects:
            if reject.reason == AVRO_EVENT:
                raise PartitionStopped(
                    f'{self.partition}: topics.output_format is "json", but the record at offset '
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
        """The rest of the records up to ``until`` is gone, and we are told to go on without."""
        assert self.until is not None
        self.next = self.until

    def _reject(self, record: Record, reject: Reject) -> None:
        letter = dead_letter(
            self.partition,
            record,
            stage=f"sink.{self._sink_name}",
            reason=reject.reason,
            error=reject.error,
            limit=self._limits.dead_letter_bytes,
        )
        self._rejects.append(letter)
        self._reject_bytes += size(letter.key, letter.value, letter.headers)
        self.rejected += 1

    def close(self, closed_by: str, topic_id: str) -> ClosedWindow:
        """The window takes no more. Cheap, whatever it holds: this is the event loop."""
        bounds = OffsetRange(self.partition, self.named, self.next)
        manifest = None
        if self._exported:
            manifest = Manifest(
                bounds, self._exported, self._digest.hexdigest(), self.sink.fingerprint, topic_id
            )
        return ClosedWindow(
            self.sink,
            bounds,
            self.position,
            manifest,
            self._rejects,
            closed_by,
            self.memory,
            self.size,
            self.plan,
            self._encoder if manifest is not None else None,
        )
