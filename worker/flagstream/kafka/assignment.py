"""The partitions that a consumer holds, each in an epoch, and the next offset to read of each.

Everything here is a decision or bookkeeping: nothing calls Kafka, and nothing waits. The consumer's thread
owns it; other threads only read :attr:`Assignment.positions`.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from confluent_kafka import Message

from flagstream.chunk import Chunk, Partition, Position, Record
from flagstream.errors import OwnershipLost
from flagstream.memory import RECORD_OVERHEAD, Weight


@dataclass(frozen=True, slots=True)
class Cut:
    """What :meth:`Assignment.cut` makes of fetched messages.

    ``void`` are partitions whose messages are dropped; each has to be fetched again from its next offset on.
    """

    chunks: Sequence[Chunk]
    void: Collection[Partition]


class Assignment:
    """The partitions of ``topic`` that are held. ``most`` is the weight of the heaviest chunk, in bytes,
    unless it holds a single record. ``charge`` makes the weight of a chunk.

    ``positions`` says where each partition was begun, ``next`` the first offset that is in no chunk yet,
    ``paused`` which ones the stage does not want to be fetched. ``epochs`` gives every tenure a new number.
    ``changes`` counts what may make messages void that ``consume()`` is about to return: rebalances, rewinds,
    and chunks that were given back.
    """

    def __init__(self, topic: str, most: int, charge: Callable[[int], Weight]) -> None:
        self.positions: dict[Partition, Position] = {}
        self.next: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.changes = 0
        self.epochs: Iterator[int] = itertools.count(1)
        self._topic = topic
        self._most = most
        self._charge = charge

    def check(self, epochs: Mapping[Partition, int]) -> None:
        """Raise OwnershipLost unless every partition is held in its epoch."""
        for partition, epoch in epochs.items():
            position = self.positions.get(partition)
            if position is None or position.epoch != epoch:
                raise OwnershipLost(f"{partition} is no longer held in epoch {epoch}")

    def hold(self, partition: Partition, position: Position) -> None:
        """The partition is held from now on, and read from ``position`` on."""
        self.positions[partition] = position
        self.next[partition] = position.offset

    def release(self, partitions: Iterable[Partition]) -> None:
        """The partitions are held no longer."""
        for partition in partitions:
            self.positions.pop(partition, None)
            self.next.pop(partition, None)
            self.paused.discard(partition)

    def end_tenures(self, epochs: Mapping[Partition, int]) -> list[Partition]:
        """End the tenures whose epochs still stand: nothing of them can be committed from here on.

        Returns their partitions. They are still held, in epochs that no stage knows, until :meth:`hold` is
        called with their new positions.
        """
        self.changes += 1
        ended = [p for p, epoch in epochs.items() if p in self.positions and self.positions[p].epoch == epoch]
        for partition in ended:
            self.positions[partition] = replace(self.positions[partition], epoch=next(self.epochs))
        return ended

    def read_again(self, partition: Partition, start: int) -> None:
        """Read the partition from ``start`` on once more: chunks from there on were given back."""
        self.changes += 1
        self.next[partition] = start

    def cut(self, messages: Sequence[Message], changes: int) -> Cut:
        """Cut ``messages``, which one ``consume()`` returned without an error, into chunks.

        A chunk is a run of one partition, no heavier than ``most`` unless it is a single record. Each begins
        where the chunk before it ended, so that chunks join. ``changes`` is the count from before that
        ``consume()``: if it differs, a callback ran inside, and the messages may belong to earlier tenures.
        """
        if changes != self.changes:
            found = {self._partition(message.partition()) for message in messages}
            return Cut((), [partition for partition in found if partition in self.next])
        chunks: list[Chunk] = []
        void: list[Partition] = []
        for index, run in itertools.groupby(messages, Message.partition):
            partition = self._partition(index)
            position = self.positions.get(partition)
            if position is None:
                continue
            records = list(run)
            if int(records[0].offset() or 0) < self.next[partition]:
                void.append(partition)  # fetched before a rewind
                continue
            for part, weight in self._parts(records):
                start, end = self.next[partition], int(part[-1].offset() or 0) + 1
                self.next[partition] = end
                fetched = cast(list[Record], part)
                chunks.append(Chunk(partition, position.epoch, start, end, fetched, self._charge(weight)))
        return Cut(chunks, void)

    def _partition(self, index: int | None) -> Partition:
        return Partition(self._topic, int(index or 0))

    def _parts(self, records: list[Message]) -> Iterator[tuple[list[Message], int]]:
        """Yield the records of each chunk, and their weight."""
        weight = sum(map(len, records)) + RECORD_OVERHEAD * len(records)
        if weight <= self._most:  # nearly always; adding up costs 0.02 µs a record
            yield records, weight
            return
        begin = weight = 0
        for index, record in enumerate(records):
            size = len(record) + RECORD_OVERHEAD
            if weight and weight + size > self._most:
                yield records[begin:index], weight
                begin, weight = index, 0
            weight += size
        yield records[begin:], weight
