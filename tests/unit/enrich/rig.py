"""An enrich stage between a group, a topic and a transactional producer that are kept in memory.

The fake Kafka keeps what the real one would: the committed offset of each partition, the epoch in which it is
held, the records of the open transaction, and those that readers of the output topic can see. So a test can
ask both what the stage did (``kafka.trace``) and what became of every record (``kafka.visible``).
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flagstream.chunk import Chunk, Partition, Position
from flagstream.chunk import Record as ChunkRecord
from flagstream.config.settings import EnrichSettings, TopicSettings
from flagstream.enrich.stage import EnrichStage
from flagstream.enrich.transform import Transform
from flagstream.errors import OwnershipLost
from flagstream.flags import FlagSet
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Holder, Tenure
from flagstream.kafka.transactions import QueueFull, TransactionalProducer
from flagstream.memory import Account, MemoryShare, Weight
from flagstream.operate.health import Problem
from tests.support.virtual_time import VirtualTimeLoop, settled

T = TypeVar("T")

TOPIC = "ingest"
FIRST, SECOND, THIRD = (Partition(TOPIC, index) for index in range(3))
EVENT = b'{"kind":"feature","userKey":"u","creationDate":1,"key":"f","value":true}'
END = 1_000_000
"""The topic holds every offset before this one, where nothing else is said."""

# ── steps of a trace ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Begun:
    """A transaction began."""


@dataclass(frozen=True, slots=True)
class Produced:
    """The records with these ids were handed to the producer, in this order."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The producer was asked to commit these next offsets, by the partition's number."""

    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Aborted:
    """The producer was asked to roll the transaction back."""


@dataclass(frozen=True, slots=True)
class Rewound:
    """A partition is read again from ``offset`` on, in a new epoch."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Paused:
    """A partition is fetched no longer."""

    partition: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """The offset at which a partition begins was committed by itself."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The stage reported an error that ends the process."""

    error: str


Step = Begun | Produced | Committed | Aborted | Rewound | Paused | Pinned | Failed


def produced(partition: Partition, start: int, end: int) -> Produced:
    """The step in which the records ``[start, end)`` of a partition are produced."""
    return Produced(tuple(ids(partition, start, end)))


def ids(partition: Partition, start: int, end: int) -> Iterator[str]:
    """Yield what identifies the records ``[start, end)`` of a partition."""
    return (f"{partition.index}@{offset}" for offset in range(start, end))


# ── records ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Record:
    """An event whose key says which partition and offset it was read from."""

    partition: int
    at: int

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return b"%d@%d" % (self.partition, self.at)

    def value(self) -> bytes | None:
        return EVENT

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


def id_of(record: Mapping[str, Any]) -> str:
    """Return what identifies a record that was produced."""
    return bytes(record["key"]).decode()


# ── Kafka ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Answer:
    """What the producer raises for a commit, and whether the transaction was committed all the same."""

    error: Exception | None = None
    landed: bool = False


class FakeKafka:
    """The chunk source and the transactional producer of one stage.

    ``answers`` are those to the next commits; without one a commit succeeds. ``room`` is how many records the
    producer's queue takes, ``taken`` how many of them brokers take each time that the queue is looked at.
    ``refuses`` are the ids of records that the output topic does not take.
    """

    def __init__(self) -> None:
        self.trace: list[Step] = []
        self.committed: dict[Partition, int] = {}
        self.texts: dict[Partition, str] = {}
        """The metadata beside each committed offset."""
        self.low: dict[Partition, int] = {}
        self.high: dict[Partition, int] = {}
        """The topic holds the offsets from ``low`` to ``high`` of a partition."""
        self.paused: set[Partition] = set()
        self.visible: list[str] = []
        self.transaction: list[str] | None = None
        self.answers: deque[Answer] = deque()
        self.refuses: set[str] = set()
        self.room, self.taken, self.queued = 1_000_000, 0, 0
        self.positions: dict[Partition, Position] = {}
        self.group_start = None
        self.group = "flagstream.enrich"
        self.limit = 1_000_000
        self.topic_id = ""
        self.progress = Progress("enrich", TOPIC)
        self._epochs = itertools.count(1)

    def hold(self, partition: Partition, to: int | None = None) -> Position:
        """Give the partition to the stage's consumer, from its committed offset or from ``to`` on."""
        committed, low = self.committed.get(partition), self.low.get(partition, 0)
        offset = (low if committed is None else committed) if to is None else to
        text = self.texts.get(partition, "")
        position = Position(next(self._epochs), offset, committed, text, low, self.high.get(partition, END))
        self.positions[partition] = position
        self.paused.discard(partition)
        self.progress.begin(partition, position)
        return position

    def take_away(self, partition: Partition) -> None:
        """The group takes the partition from the stage's consumer."""
        del self.positions[partition]

    # the chunk source

    def pause(self, partition: Partition, epoch: int) -> None:
        self._check({partition: epoch})
        self.paused.add(partition)
        self.trace.append(Paused(partition.index))

    def commit_offset(self, partition: Partition, epoch: int, offset: int, text: str) -> None:
        self._check({partition: epoch})
        self.committed[partition], self.texts[partition] = offset, text
        self.trace.append(Pinned(partition.index, offset))

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        found = {}
        for partition, epoch in sorted(epochs.items()):
            if (held := self.positions.get(partition)) is not None and held.epoch == epoch:
                found[partition] = self.hold(partition, to)
                self.trace.append(Rewound(partition.index, found[partition].offset))
        return found

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        self._check(epochs)
        return self

    def _check(self, epochs: Mapping[Partition, int]) -> None:
        for partition, epoch in epochs.items():
            if partition not in self.positions or self.positions[partition].epoch != epoch:
                raise OwnershipLost(f"{partition} is not held in epoch {epoch}")

    # the producer

    def open(self, keep_trying: object) -> None: ...

    def close(self) -> None: ...

    def problems(self) -> Iterator[Problem]:
        return iter(())

    def begin(self) -> None:
        assert self.transaction is None, "a producer has one transaction at a time"
        self.transaction = []
        self.trace.append(Begun())

    def release_delivered(self) -> None:
        self.queued = max(0, self.queued - self.taken)

    def produce_batch(self, topic: str, records: Sequence[Mapping[str, Any]]) -> None:
        assert self.transaction is not None, "records are produced inside of a transaction"
        count = min(len(records), self.room - self.queued)
        self.queued += count
        if count:
            step = Produced(tuple(map(id_of, records[:count])))
            self.trace.append(step)
            self.transaction += step.ids
        if count < len(records):
            raise QueueFull(count)

    def produce(self, topic: str, **record: Any) -> None:
        self.produce_batch(topic, [record])

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        assert group is self
        assert self.transaction is not None
        self.trace.append(Committed(tuple(sorted((p.index, offset) for p, (offset, _) in offsets.items()))))
        answer = self.answers.popleft() if self.answers else Answer(landed=True)
        held, self.transaction, self.queued = self.transaction, None, 0
        if answer.landed:
            self.visible += held
            for partition, (offset, text) in offsets.items():
                self.committed[partition], self.texts[partition] = offset, text
        if answer.error is not None:
            raise answer.error

    def abort(self) -> None:
        self.transaction, self.queued = None, 0
        self.trace.append(Aborted())

    def takes(self, topic: str, records: Sequence[Mapping[str, Any]]) -> bool:
        assert self.transaction is None
        return self.refuses.isdisjoint(map(id_of, records))


class _Source:
    """The chunk source's side of a FakeKafka, whose ``commit`` is not that of a transaction."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kafka, name)

    async def call(self, function: Callable[[], T]) -> T:
        return function()

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        self._kafka.commit_offset(partition, epoch, offset, metadata)
        return True


class Rig:
    """An enrich stage and its Kafka. ``account`` counts the memory of the chunks that were given."""

    def __init__(self, kafka: FakeKafka | None = None, **settings: Any) -> None:
        self.kafka = kafka or FakeKafka()
        self.account = Account(MemoryShare())
        self.stage = EnrichStage(
            EnrichSettings(**settings),
            TopicSettings(),
            Transform(FlagSet({})),
            cast(TransactionalProducer, self.kafka),
            fail=lambda error: self.kafka.trace.append(Failed(repr(error))),
        )
        self._chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None

    async def begin(self, *partitions: Partition) -> None:
        """Open the stage, assign ``partitions`` to it, and run its body."""
        await self.stage.open(1_000_000, lambda: True, lambda: self.kafka.topic_id)
        await self.assign(*partitions)
        await settled()
        self._running = asyncio.create_task(self.stage.run(self._fed()))

    async def assign(self, *partitions: Partition) -> None:
        """The group gives ``partitions`` to the stage."""
        await self.stage.assigned(
            [self.tenure(partition, self.kafka.hold(partition)) for partition in partitions]
        )

    def tenure(self, partition: Partition, position: Position) -> Tenure:
        """The tenure in which the stage holds the partition from ``position`` on."""
        return Tenure(partition, position, cast(Holder, _Source(self.kafka)))

    async def lose(self, *partitions: Partition) -> None:
        """The group has given ``partitions`` to others without waiting for the stage."""
        for partition in partitions:
            self.kafka.take_away(partition)
        await self.stage.lost(partitions)

    async def revoke(self, *partitions: Partition) -> None:
        """The group takes ``partitions`` away; they are held until the stage is done with them."""
        await self.stage.revoked(partitions)
        for partition in partitions:
            self.kafka.take_away(partition)

    def give(self, partition: Partition, start: int, end: int, epoch: int | None = None) -> None:
        """Hand the stage the records ``[start, end)``, fetched in the present epoch unless one is named."""
        epoch = self.kafka.positions[partition].epoch if epoch is None else epoch
        records = [Record(partition.index, offset) for offset in range(start, end)]
        self.give_chunk(partition, epoch, start, end, records)

    def give_chunk(
        self, partition: Partition, epoch: int, start: int, end: int, records: Sequence[ChunkRecord]
    ) -> None:
        """Hand the stage a chunk of these records."""
        weight = Weight(self.account, 1_000 * len(records))
        self._chunks.put_nowait(Chunk(partition, epoch, start, end, records, weight))

    async def give_again(self, end: int, *partitions: Partition) -> None:
        """Hand the stage whatever of ``partitions`` before ``end`` is not committed, and let it be
        committed.
        """
        for partition in partitions:
            self.give(partition, self.kafka.positions[partition].offset, end)
        await asyncio.sleep(60)

    async def _fed(self) -> AsyncIterator[Chunk]:
        while True:
            yield await self._chunks.get()


def threads() -> VirtualTimeLoop:
    """Return the loop, which can hold the calls for worker threads."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop
