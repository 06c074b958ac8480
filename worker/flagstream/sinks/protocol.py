"""What a sink is: the protocol that every destination of windows satisfies.

The engine (``flagstream.export``) owns offsets, plans, retries, back-off and memory; a sink owns one
destination. All calls that may block (``open``, ``deliver``, ``holdings``, ``close``) are made in worker
threads, never on the event loop, and so is an encoder's ``finish``. ``deliver`` runs for several partitions
at once. A sink keeps no state about partitions between calls.

There are two shapes, and one that can be more (:class:`PartsSink`):

* :class:`Sink` delivers a window to the outside. The range is planned in Kafka before ``deliver`` is called
  for the first time, and ``deliver`` is called again with the same manifest after any failure, crash or
  takeover, possibly while an earlier call of another process is still under way. It has to be create-only:
  the first one wins, all others find it "already there", which is success when the content agrees.
* :class:`TransactionalSink` delivers inside the Kafka transaction that also commits the offsets. No plan is
  needed. One that users can configure is a :class:`ConfiguredTransactionalSink`.

Both fill windows through a :class:`WindowEncoder`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from flagstream.chunk import Headers, Partition, Record
from flagstream.outcomes import Proof, Reject
from flagstream.window import Manifest, OffsetRange

__all__ = [
    "ConfiguredTransactionalSink",
    "Delivery",
    "Part",
    "PartsSink",
    "Preview",
    "Proof",
    "Reject",
    "Sink",
    "Transaction",
    "TransactionalSink",
    "WindowEncoder",
]

Payload = TypeVar("Payload")
"""What a sink's encoder hands to its ``deliver``; opaque to the engine."""
Encoded_co = TypeVar("Encoded_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What ``deliver`` did: objects created, objects found already there with the same content, encoded bytes
    stored.
    """

    created: int
    existing: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What ``flagstream render`` shows of a window: the names of its objects, whole, with the place that they
    are in, and one record as text.
    """

    names: Sequence[str]
    record: str


class WindowEncoder(Protocol[Encoded_co]):
    """Collects one window, encoding as it goes: a window in memory is its compressed bytes, not its events.

    No I/O here. Called on the event loop, but for ``finish``, which has a thread: what takes long and can
    wait belongs there. Never by two at once. The same records give the same content however the calls of
    ``add`` are cut.
    """

    @property
    def size(self) -> int:
        """Bytes of encoded, compressed output so far: what ``max_bytes`` limits."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of memory that the window takes, for the budget: at least ``size``. Read after ``finish``
        too.
        """
        ...

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        """Take further records; ``values[i]`` is ``records[i].value()``. Rejected records leave no trace in
        the output.
        """
        ...

    def finish(self, manifest: Manifest) -> Encoded_co:
        """Close the window; called once, in a thread, with at least one exported record, after the last
        ``add``. Its payload serves all tries to deliver. Raises nothing: the process would end.
        """
        ...


class Sink(Protocol[Payload]):
    """A destination outside Kafka.

    One that has an attribute ``unit`` (``"rows"``) is spoken of by that word in texts for people; of others
    they say "windows".
    """

    fingerprint: str
    """Changes whenever the objects of the same records would be named or shaped differently. At most 64
    characters.
    """

    def open(self) -> None:
        """Prove that the sink can be used. Called before the first window and retried with back-off.

        Raises SinkRefused or SinkUnavailable.
        """
        ...

    def begin(self, partition: Partition, start: int) -> WindowEncoder[Payload]:
        """An empty window of ``partition`` that starts at offset ``start``. No I/O."""
        ...

    def deliver(self, manifest: Manifest, payload: Payload) -> Delivery:
        """Store the window under names made of its range; returns only when it is durable.

        Create-only. An object that is there already is compared by what it says of itself (range, count,
        digest).

        Raises SinkRefused, SinkUnavailable, ObjectConflict when something else stands under the name, or
        PartitionStopped when nothing more may be tried before a person has acted. An unexpected exception
        counts as SinkUnavailable, and its text is not shown.
        """
        ...

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        """The ranges of ``partition`` with ``end > start`` that the sink holds, in order of their start; one
        listing. Also one of which only a part is stored so far. ``deliver`` finds what is there of it; if it
        would not, the range is an :class:`~flagstream.window.OtherwiseNamed`, which is never delivered.

        None: the sink cannot know (a log, a webhook). Raises SinkRefused or SinkUnavailable.
        """
        ...

    def probe(self) -> Iterator[Proof]:
        """Try what the sink needs to be allowed to do, on the real destination, leaving nothing behind.

        What cannot be tried without an effect is "unproved", with the reason. Raises nothing: a failure is a
        Proof.
        """
        ...

    def preview(self, manifest: Manifest, payload: Payload) -> Preview:
        """How a window would be stored; touches nothing."""
        ...

    def close(self) -> None:
        """Release what ``open`` took. No delivery is under way; called once."""
        ...


class Part(Protocol):
    """A share of a window that is sent by itself, under an id made of its range. Never changes."""

    @property
    def range(self) -> OffsetRange: ...
    @property
    def count(self) -> int:
        """How many events it has, at least one."""
        ...

    @property
    def middle(self) -> int:
        """The offset at which halving cuts it; only of one with several events."""
        ...

    def split(self, at: int) -> "Sequence[Part]":
        """The parts on both sides of the offset ``at``; only itself where one side has no events."""
        ...


@runtime_checkable
class PartsSink(Sink[Payload], Protocol[Payload]):
    """A :class:`Sink` whose windows go out as several requests, one after the other.

    The engine sends the parts itself. One that is refused for what it holds it divides, down to the event,
    so that one bad event takes no others with it; how it is divided is committed before the first half is
    sent. The parts of a window, and so their ids, depend on its records and on what is in ``fingerprint``.
    """

    def parts(self, payload: Payload) -> Sequence[Part]:
        """The window's parts, in order. Their ranges tile the window's. No I/O."""
        ...

    def send(self, manifest: Manifest, part: Any) -> int:
        """Send one part, in a worker thread; returns the bytes sent when it is accepted.

        Raises PartRefused when a smaller part may be accepted, and otherwise what :meth:`Sink.deliver`
        raises. SinkUnavailable says whether the part may have been taken unseen (``unanswered``): such a part
        is never divided, since the whole and its halves have different ids.
        """
        ...


class Transaction(Protocol):
    """An open Kafka transaction, as a :class:`TransactionalSink` sees it."""

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Add a record; it becomes visible together with the window's offset, or not at all."""
        ...


@runtime_checkable
class TransactionalSink(Protocol[Payload]):
    """A destination in the same Kafka cluster: records and offset are committed as one."""

    fingerprint: str

    def begin(self, partition: Partition, start: int) -> WindowEncoder[Payload]:
        """As :meth:`Sink.begin`."""
        ...

    def deliver_in(self, transaction: Transaction, manifest: Manifest, payload: Payload) -> None:
        """Produce the window's records into ``transaction``; the engine adds the offset and commits."""
        ...


@runtime_checkable
class ConfiguredTransactionalSink(TransactionalSink[Payload], Protocol[Payload]):
    """A :class:`TransactionalSink` as users configure it: a topic of the worker's own cluster.

    The engine makes sure that ``topic`` exists, and that it is none of its own. The producer is the engine's,
    opened when the worker starts, under a transactional.id of this sink.
    """

    topic: str
    partitioner: str
    """How keys choose partitions, by librdkafka's names."""
    limit: int
    """Bytes of the largest record that ``topic`` takes. Set by the engine before the first window, and when
    the topic turns out to take less; the windows that are open then are begun anew.
    """

    def probe(self) -> Iterator[Proof]:
        """As :meth:`Sink.probe`."""
        ...

    def preview(self, manifest: Manifest, payload: Payload) -> Preview:
        """As :meth:`Sink.preview`."""
        ...
