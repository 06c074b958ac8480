"""The enrich stage when the producer's queue has no room: it waits, and commits nothing by halves."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Chunk, Partition, Position
from flagstream.config.settings import EnrichSettings, TopicSettings
from flagstream.enrich.stage import EnrichStage
from flagstream.enrich.transform import Transform
from flagstream.flags import FlagSet
from flagstream.kafka.tenure import Holder, Tenure
from flagstream.kafka.transactions import QueueFull, TransactionalProducer
from flagstream.memory import Account, MemoryShare, Weight
from flagstream.operate.health import Problem
from tests.support.virtual_time import in_virtual_time, settled
from tests.unit.enrich.rig import threads
from tests.unit.enrich.test_stage import Kafka, Record

FIRST, SECOND = Partition("ingest", 0), Partition("ingest", 1)


class SmallQueue(Kafka):
    """A producer and a source in one. The queue has room for ``room`` records; brokers take ``taken`` of them
    each time that it is looked at.
    """

    room = 3
    taken = 1
    queued = 0

    def produce_batch(self, topic: str, records: Sequence[object]) -> None:
        count = min(len(records), self.room - self.queued)
        self.queued += count
        if count:
            self.trace.append(("queue", count))
        if count < len(records):
            raise QueueFull(count)

    def produce(self, topic: str, **record: object) -> None:
        assert record["wait"] == 0.0  # the event loop must not be blocked
        self.produce_batch(topic, [record])

    def release_delivered(self) -> None:
        self.queued = max(0, self.queued - self.taken)

    waits_for = ""

    def problems(self) -> Any:
        return iter([Problem("transaction", self.waits_for)] if self.waits_for else ())

    def abort(self) -> None:
        self.queued = 0
        self.trace.append(("abort", 0))

    def commit(self, *call: Any) -> Any:
        offsets, _ = call
        self.queued = 0
        self.trace += [(f"commit {partition.index}", offset) for partition, (offset, _) in offsets.items()]

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        self.trace += [(f"rewind {partition.index}", epoch) for partition, epoch in epochs.items()]
        return {}


class Rig:
    """A stage that holds two partitions, both begun at offset 0."""

    def __init__(self, **settings: Any) -> None:
        self.kafka = SmallQueue()
        self.account = Account(MemoryShare())
        self.chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        self.stage = EnrichStage(
            EnrichSettings(**settings),
            TopicSettings(),
            Transform(FlagSet({})),
            cast(TransactionalProducer, self.kafka),
            fail=lambda error: self.kafka.trace.append((repr(error), 0)),
        )

    async def begin(self) -> None:
        await self.stage.open(1_000_000, lambda: True, lambda: "")
        await self.stage.assigned(
            [
                Tenure(p, Position(1, 0, 0, '{"v":1}', 0, 99), cast(Holder, self.kafka))
                for p in (FIRST, SECOND)
            ]
        )
        await settled()
        self.running = asyncio.create_task(self.stage.run(self._chunks()))

    async def _chunks(self) -> AsyncIterator[Chunk]:
        while True:
            yield await self.chunks.get()

    def give(self, partition: Partition, end: int) -> None:
        """A chunk of the records before ``end``."""
        records = [Record(number) for number in range(end)]
        self.chunks.put_nowait(Chunk(partition, 1, 0, end, records, Weight(self.account, 1_000)))


@in_virtual_time
async def test_a_batch_that_does_not_fit_is_waited_for() -> None:
    """Larger than the queue, it is produced as brokers take records, in order, and committed whole."""
    rig = Rig(commit_interval=0.01)
    await rig.begin()
    rig.give(FIRST, 10)
    await asyncio.sleep(1)

    assert rig.kafka.trace[0] == ("queue", 3)
    assert sum(count for what, count in rig.kafka.trace if what == "queue") == 10
    assert rig.kafka.trace[-1] == ("commit 0", 10)
    assert [what for what, _ in rig.kafka.trace].count("commit 0") == 1
    assert rig.account.settle() == 0


@in_virtual_time
async def test_what_is_whole_does_not_wait_for_what_finds_no_room() -> None:
    """The transaction that fills the queue is committed, and the next batch begins another one."""
    rig = Rig(commit_interval=1)
    rig.kafka.taken = 0
    await rig.begin()
    rig.give(FIRST, 3)
    rig.give(SECOND, 2)
    await settled()
    await asyncio.sleep(0.5)

    assert rig.kafka.trace == [("queue", 3), ("commit 0", 3), ("queue", 2)]


@in_virtual_time
async def test_a_revoke_waits_for_half_a_batch_and_commits_it_whole() -> None:
    """Half of it, committed, would be doubled by who reads it again."""
    rig = Rig()
    await rig.begin()
    rig.give(FIRST, 5)
    await settled()
    assert rig.kafka.trace == [("queue", 3)]

    await rig.stage.revoked([FIRST])

    assert rig.kafka.trace[-1] == ("commit 0", 5)


@in_virtual_time
async def test_a_loss_gives_half_a_batch_up() -> None:
    """Nothing of it is produced any more, and what else the transaction held is read again."""
    rig = Rig()
    rig.kafka.taken = 0
    await rig.begin()
    rig.give(FIRST, 5)
    await settled()

    await rig.stage.lost([FIRST])
    await asyncio.sleep(1)

    assert rig.kafka.trace == [("queue", 3), ("abort", 0), ("rewind 0", 1)]
    assert rig.account.settle() == 0


@in_virtual_time
async def test_the_wait_ends_before_the_transaction_times_out() -> None:
    """The broker would end it, and fence the producer. It is rolled back, and read again after a pause."""
    rig = Rig(transaction_timeout=10)
    rig.kafka.taken = 0
    await rig.begin()
    rig.give(FIRST, 5)
    await asyncio.sleep(7)
    assert rig.kafka.trace == [("queue", 3)]

    await asyncio.sleep(1)
    assert rig.kafka.trace == [("queue", 3), ("abort", 0), ("rewind 0", 1)]
    assert rig.stage._setbacks.left(asyncio.get_running_loop().time() - 1) > 0


@in_virtual_time
@pytest.mark.parametrize("content", [b"{", b""])
async def test_dead_letters_are_waited_for_as_well(content: bytes) -> None:
    """They go through the same queue, and none is lost or written twice."""
    rig = Rig()
    await rig.begin()
    records = [Record(number, content) for number in range(7)]
    rig.chunks.put_nowait(Chunk(FIRST, 1, 0, 7, records))
    await asyncio.sleep(1)

    assert sum(count for what, count in rig.kafka.trace if what == "queue") == 7
    assert rig.kafka.trace[-1] == ("commit 0", 7)


@in_virtual_time
async def test_a_transaction_that_waits_for_a_known_reason_is_told_with_it() -> None:
    """The log and the page say the same: to look at the brokers does not help where a right is missing."""
    rig = Rig()
    rig.kafka.waits_for = "this user may not use the transactional.id; grant it"
    await rig.begin()
    threads().hold_threads()
    rig.give(FIRST, 1)
    await asyncio.sleep(12)

    with capture_logs() as lines:
        rig.stage.look()
        rig.stage.look()

    assert [(line["event"], line["hint"]) for line in lines] == [
        ("transaction_under_way", rig.kafka.waits_for)
    ]
