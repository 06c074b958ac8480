"""The protocol that every destination of windows satisfies.

The engine (``flagstream.export``) owns offsets, plans, retries, back-off and memory; a sink owns one
destination. The engine makes all calls that may block (``open``, ``deliver``, ``holdings``, ``close``) in
worker threads, never on the event loop, and so it does with an encoder's ``finish``. ``deliver`` runs for
several partitions at once. A sink keeps no state about partitions between calls.

There are two shapes, and the first can be extended (:class:`PartsSink`):

* :class:`Sink` delivers a window to the outside. The range is planned in Kafka before ``deliver`` is called
  for the first time, and ``deliver`` is called again with the same manifest after any failure, crash or
  takeover, possibly while an earlier call of another process is still under way. It has to be create-only:
  the first call wins, and all others find the window "already there", which is success if the content agrees.
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
"""The type that a sink's encoder returns and its ``deliver`` takes; opaque to the engine."""
Encoded_co = TypeVar("Encoded_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of ``deliver``: how many objects it created, how many it found there with the same content,
    and how many encoded bytes it stored.
    """

    created: int
    existing: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The part of a window that ``flagstream render`` shows: the full names of its objects, with the place
    where they are stored, and one record as text.
    """

    names: Sequence[str]
    record: str


class WindowEncoder(Protocol[Encoded_co]):
    """Collects one window and encodes it on the way: a window in memory is its compressed bytes, not its
    events.

    It does no I/O. The engine calls it on the event loop, except ``finish``, which it calls in a thread: work
    that takes long and can wait belongs there. No two calls run at the same time. The same records give the
    same content, however the calls of ``add`` are cut.
    """

    @property
    def size(self) -> int:
        """Bytes of encoded, compressed output so far; ``max_bytes`` limits them."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of memory that the window takes, for the budget: at least ``size``. The engine also reads it
        after ``finish``.
        """
        ...

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        """Add records; ``values[i]`` is ``records[i].value()``. Return those that the format cannot hold:
        they leave no trace in the output.
        """
        ...

    def finish(self, manifest: Manifest) -> Encoded_co:
        """Close the window. The engine calls it once, in a thread, after the last ``add``, if there is at
        least one exported record. The payload serves all tries to deliver. It must not raise: the process
        would end.
        """
        ...


class Sink(Protocol[Payload]):
    """Describes a destination outside Kafka.

    If a sink has an attribute ``unit`` (``"rows"``), texts for people call its windows by that word.
    """

    fingerprint: str
    """Changes whenever the objects of the same records would be named or shaped differently. At most 64
    characters.
    """

    def open(self) -> None:
        """Check that the sink can be used. The engine calls it before the first window, and again with
        back-off until it succeeds.

        Raises SinkRefused or SinkUnavailable.
        """
        ...

    def begin(self, partition: Partition, start: int) -> WindowEncoder[Payload]:
        """Return an empty window of ``partition`` that starts at offset ``start``. It does no I/O."""
        ...

    def deliver(self, manifest: Manifest, payload: Payload) -> Delivery:
        """Store the window under names made of its range, and return when it is durable.

        Objects are only ever created. If one is there already, compare its manifest (range, count, digest)
        with ours.

        Raises SinkRefused, SinkUnavailable, ObjectConflict when something else stands under the name, or
        PartitionStopped when nothing more may be tried before a person has acted. An unexpected exception
        counts as SinkUnavailable, and its text is not shown.
        """
        ...

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        """Return the ranges of ``partition`` with ``end > start`` that the sink holds, in order of their
        start, from one listing. A range of which only a part is stored counts: ``deliver`` must find that
        part. If it would not, return an :class:`~flagstream.window.OtherwiseNamed`, which the engine never
        delivers.

        Return None if the sink cannot know (a log, a webhook). Raises SinkRefused or SinkUnavailable.
        """
        ...

    def probe(self) -> Iterator[Proof]:
        """Try each thing that the sink needs to be allowed to do, on the real destination, and remove every
        trace of it. ``flagstream check`` calls it.

        A thing that cannot be tried without an effect is "unproved", with the reason. It must not raise: a
        failure is a Proof, too.
        """
        ...

    def preview(self, manifest: Manifest, payload: Payload) -> Preview:
        """Return how a window would be stored. It touches nothing."""
        ...

    def close(self) -> None:
        """Release everything that ``open`` took. The engine calls it once, when no delivery is under way."""
        ...


class Part(Protocol):
    """A share of a window that is sent by itself, under an id made of its range. It never changes."""

    @property
    def range(self) -> OffsetRange: ...
    @property
    def count(self) -> int:
        """Return the number of its events, at least one."""
        ...

    @property
    def middle(self) -> int:
        """The offset at which the engine halves it, if it has several events."""
        ...

    def split(self, at: int) -> "Sequence[Part]":
        """Return the parts on both sides of the offset ``at``, or only itself if one side has no events."""
        ...


@runtime_checkable
class PartsSink(Sink[Payload], Protocol[Payload]):
    """A :class:`Sink` whose windows go out as several requests, one after the other.

    The engine sends the parts itself. If a part is refused for its content, the engine divides it, down to
    the event, so that one bad event takes no others with it. It commits the cut before it sends the first
    half. The parts of a window, and so their ids, depend only on its records and on the settings that
    ``fingerprint`` covers.
    """

    def parts(self, payload: Payload) -> Sequence[Part]:
        """Return the window's parts, in order. Their ranges tile the window's range. It does no I/O."""
        ...

    def send(self, manifest: Manifest, part: Any) -> int:
        """Send one part; return the number of bytes sent once it is accepted. The engine calls it in a worker
        thread.

        Raises PartRefused if a smaller part may be accepted, and otherwise the same errors as
        :meth:`Sink.deliver`. SinkUnavailable says whether the part may have been accepted without an answer
        (``unanswered``). The engine never divides such a part, because the whole and its halves have
        different ids.
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
        """Produce the window's records into ``transaction``. The engine adds the offset and commits."""
        ...


@runtime_checkable
class ConfiguredTransactionalSink(TransactionalSink[Payload], Protocol[Payload]):
    """Describes a :class:`TransactionalSink` as users configure it: a topic of the worker's own cluster.

    The engine makes sure that ``topic`` exists, and that it is none of its own. The producer is the engine's,
    opened when the worker starts, under a transactional.id of this sink.
    """

    topic: str
    partitioner: str
    """How keys choose partitions, by librdkafka's names."""
    limit: int
    """Bytes of the largest record that ``topic`` takes. Set by the engine before the first window, and when
    the topic turns out to take less; then the windows that are open are started again.
    """

    def probe(self) -> Iterator[Proof]:
        """Satisfies :meth:`Sink.probe`."""
        ...

    def preview(self, manifest: Manifest, payload: Payload) -> Preview:
        """Satisfies :meth:`Sink.preview`."""
        ...
