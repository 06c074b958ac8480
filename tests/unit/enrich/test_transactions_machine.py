"""Whatever happens to the enrich stage, in whatever order: every record comes out in exactly one transaction.

The machine plays Kafka: it fetches chunks, moves partitions, deletes records, creates the topic again, and
lets commits fail, hang, or end in an unknown state. The fake Kafka compares every transaction that it commits
with what its offsets say.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from operator import gt
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from structlog.testing import capture_logs

from flagstream.chunk import Partition, Position
from flagstream.config.settings import TopicSettings
from flagstream.errors import TransactionAborted, TransactionUncertain
from flagstream.kafka.commit_metadata import Committed
from flagstream.kafka.transactions import NotQueued, RecordTooLarge, TransactionRefused
from tests.support.virtual_time import VirtualTimeLoop, settled
from tests.unit.enrich.rig import END, EVENT, FIRST, SECOND, THIRD, Answer, Failed, FakeKafka, Rig

OUTPUT = TopicSettings().output
PARTITIONS = (FIRST, SECOND, THIRD)
ROUNDS = 40
"""Tries to bring the stage to rest. Each gives it two minutes, in which the longest pause is over."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A record of one life of the topic. Its key says which, and in which epoch it was fetched."""

    life: int
    partition: int
    at: int
    epoch: int

    @property
    def id(self) -> str:
        return f"{self.life}:{self.partition}@{self.at}"

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return f"{self.id}/{self.epoch}".encode()

    def value(self) -> bytes:
        return b"{" if self.at % 11 == 5 else EVENT  # some become dead letters

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


def existing(start: int) -> Iterator[int]:
    """Yield the offsets from ``start`` on that hold a record; the others are markers."""
    return (offset for offset in range(start, END) if offset % 5 != 3)


class CheckedKafka(FakeKafka):
    """A Kafka that refuses what a real one refuses, and fails where a commit does not hold what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.life = 1
        self.generation = 1
        self.topic_id = "life-1"
        self.begins = True
        self.ends: dict[tuple[Partition, int], int] = {}
        """Where the last commit of an epoch ended."""
        self.topics: list[str] = []
        """The topic of each record in the transaction."""

    def recreate(self, high: int) -> None:
        """Delete the topic and create it again, with ``high`` offsets in each partition."""
        self.life += 1
        self.topic_id = f"life-{self.life}"
        self.low, self.high = {}, dict.fromkeys(PARTITIONS, high)

    def begin(self) -> None:
        super().begin()
        self.topics = []
        if not self.begins:
            self.begins = True
            raise NotQueued("no transaction begins")

    def produce_batch(self, topic: str, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            super().produce_batch(topic, records)
        finally:
            self.topics += [topic] * (len(self.transaction or ()) - len(self.topics))

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        self._check(epochs)
        return _Group(self, self.generation)

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        assert isinstance(group, _Group)
        assert self.transaction is not None
        held = self.transaction
        if group.generation != self.generation:
            self.answers.appendleft(Answer(TransactionAborted("another generation")))
        elif any(
            _id(key) in self.refuses for key, topic in zip(held, self.topics, strict=True) if topic == OUTPUT
        ):
            self.answers.appendleft(Answer(TransactionRefused("bad record", of_a_record=True)))
        answer = self.answers[0] if self.answers else Answer(landed=True)
        if answer.landed:
            for partition, (offset, _) in offsets.items():
                self._compare(partition, offset, [key for key in held if _partition(key) == partition.index])
                self.ends[partition, self.positions[partition].epoch] = offset
            assert {_partition(key) for key in held} <= {partition.index for partition in offsets}
        super().commit(offsets, group.kafka)

    def takes(self, topic: str, records: Any) -> bool:
        assert self.transaction is None
        return self.refuses.isdisjoint(_id(bytes(record["key"]).decode()) for record in records)

    def _compare(self, partition: Partition, end: int, keys: list[str]) -> None:
        """The transaction holds every record from the last commit up to ``end``, and no other."""
        position = self.positions[partition]
        start = self.ends.get((partition, position.epoch), position.offset)
        offsets = list(takewhile(partial(gt, end), existing(start)))
        assert sorted(map(_offset, keys)) == offsets, f"{partition}: [{start}, {end}) holds {keys}"
        assert {_epoch(key) for key in keys} <= {position.epoch}, f"{partition}: a dead epoch in {keys}"


@dataclass(frozen=True, slots=True)
class _Group:
    kafka: CheckedKafka
    generation: int


def _id(key: str) -> str:
    return key.rpartition("/")[0]


def _epoch(key: str) -> int:
    return int(key.rpartition("/")[2])


def _offset(key: str) -> int:
    return int(_id(key).rpartition("@")[2])


def _partition(key: str) -> int:
    return int(_id(key).partition(":")[2].partition("@")[0])


ANSWERS: dict[str, Callable[[], Answer]] = {
    "aborted": lambda: Answer(TransactionAborted("why")),
    "too large": lambda: Answer(RecordTooLarge("why")),
    "refused": lambda: Answer(TransactionRefused("why", of_a_record=False)),
    "refused for a record": lambda: Answer(TransactionRefused("why", of_a_record=True)),
    "uncertain": lambda: Answer(TransactionUncertain("why")),
    "uncertain, and committed": lambda: Answer(TransactionUncertain("why"), landed=True),
}
partitions = st.sampled_from(PARTITIONS)
counts = st.integers(1, 6)


class EnrichTransactions(RuleBasedStateMachine):
    """One enrich stage and its Kafka. The loop's time passes only where a rule says so."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.around = ExitStack()
        self.around.enter_context(capture_logs())
        self.kafka = CheckedKafka()
        self.hanging = False
        self.callback: asyncio.Task[None] | None = None
        """A rebalance callback that waits for the stage; the consumer polls nothing meanwhile."""
        self.fetched: dict[tuple[Partition, int], int] = {}
        """Where the next chunk of an epoch starts."""
        self.reported: set[tuple[Partition, int]] = set()
        """Epochs whose next record is missing; the stage knows."""
        self.lost: set[str] = set()
        """Records that were deleted, so that nobody may be able to read them."""
        self.produced_until: dict[Partition, int] = dict.fromkeys(PARTITIONS, 1)

    @initialize(missing=st.sampled_from(["stop", "continue"]), events=st.sampled_from([1, 5, 10_000]))
    def begin(self, missing: str, events: int) -> None:
        self.rig = Rig(self.kafka, on_missing_records=missing, max_transaction_events=events)
        self.do(self.rig.begin(FIRST, SECOND))

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Let ``work`` run, and whatever follows from it without time."""

        async def run() -> None:
            await work
            await settled()

        self.loop.run_until_complete(run())

    # ── chunks ────────────────────────────────────────────────────────────

    @property
    def polling(self) -> bool:
        return self.callback is None or self.callback.done()

    @rule(partition=partitions, count=counts)
    @precondition(lambda self: self.polling)
    def fetch(self, partition: Partition, count: int) -> None:
        """The consumer polls: it hands over a chunk, or reports that the next record is missing."""
        self.do(self.fetched_next(partition, count))

    async def fetched_next(self, partition: Partition, count: int) -> None:
        position = self.kafka.positions.get(partition)
        if position is None or partition in self.kafka.paused:
            return
        epoch = position.epoch
        start = self.fetched.get((partition, epoch), position.offset)
        low, high = self.kafka.low.get(partition, 0), self.kafka.high.get(partition, END)
        if not low <= start <= high:
            if (partition, epoch) not in self.reported:
                self.reported.add((partition, epoch))
                at = Position(epoch, start, position.committed, position.metadata, low, high)
                await self.rig.stage.records_missing(self.rig.tenure(partition, position), at)
            return
        records = [
            Numbered(self.kafka.life, partition.index, offset, epoch)
            for offset in islice(existing(start), count)
            if offset < high
        ]
        if records:
            end = records[-1].at + 1
            self.fetched[partition, epoch] = end
            self.produced_until[partition] = max(self.produced_until[partition], end)
            self.rig.give_chunk(partition, epoch, start, end, records)

    @rule(partition=partitions, count=counts, gap=st.integers(-3, 3).filter(bool))
    @precondition(lambda self: self.polling)
    def chunk_that_does_not_join(self, partition: Partition, count: int, gap: int) -> None:
        """A chunk was lost on its way, or comes twice."""
        if (position := self.kafka.positions.get(partition)) is None:
            return
        epoch = position.epoch
        start = max(0, self.fetched.get((partition, epoch), position.offset) + gap)
        self.chunk(partition, epoch, start, count)

    @rule(partition=partitions, count=counts, back=st.integers(1, 4))
    def chunk_of_a_dead_epoch(self, partition: Partition, count: int, back: int) -> None:
        """A chunk was fetched before a rebalance or a rewind. It may join by its offsets."""
        if (position := self.kafka.positions.get(partition)) is None or position.epoch <= back:
            return
        start = self.fetched.get((partition, position.epoch), position.offset)
        self.chunk(partition, position.epoch - back, start, count)

    def chunk(self, partition: Partition, epoch: int, start: int, count: int) -> None:
        offsets = list(islice(existing(start), count))
        records = [Numbered(self.kafka.life, partition.index, offset, epoch) for offset in offsets]
        self.rig.give_chunk(partition, epoch, start, offsets[-1] + 1, records)
        self.do(settled())

    # ── the group ────────────────────────────────────────────────────────────

    @rule(partition=partitions)
    @precondition(lambda self: self.polling)
    def assign(self, partition: Partition) -> None:
        if partition not in self.kafka.positions:
            self.do(self.rig.assign(partition))

    @rule(partition=partitions)
    @precondition(lambda self: self.polling)
    def revoke(self, partition: Partition) -> None:
        if partition in self.kafka.positions:
            self.call_back(self.rig.revoke(partition))

    @rule(partition=partitions)
    @precondition(lambda self: self.polling)
    def lose(self, partition: Partition) -> None:
        if partition in self.kafka.positions:
            self.kafka.generation += 1
            self.call_back(self.rig.lose(partition))

    @rule(partition=partitions, count=counts)
    def another_worker(self, partition: Partition, count: int) -> None:
        """The one that holds the partition meanwhile commits some of its records."""
        committed = self.kafka.committed.get(partition, 0)
        if partition in self.kafka.positions or not self.readable(partition, committed):
            return
        offsets = [
            offset
            for offset in islice(existing(committed), count)
            if offset < self.kafka.high.get(partition, END)
        ]
        if offsets and self.fits(partition):
            self.kafka.visible += [
                Numbered(self.kafka.life, partition.index, o, 0).key().decode() for o in offsets
            ]
            self.kafka.committed[partition] = offsets[-1] + 1
            self.kafka.texts[partition] = Committed(topic_id=self.kafka.topic_id).text()

    def call_back(self, work: Coroutine[Any, Any, None]) -> None:
        self.callback = self.loop.create_task(work)
        self.do(settled())

    # ── transactions ────────────────────────────────────────────────────────────

    @rule(answer=st.sampled_from(sorted(ANSWERS)))
    def next_commit(self, answer: str) -> None:
        self.kafka.answers.append(ANSWERS[answer]())

    @rule()
    def next_transaction_does_not_begin(self) -> None:
        self.kafka.begins = False

    @rule(partition=partitions, ahead=st.integers(0, 5))
    def a_record_is_refused(self, partition: Partition, ahead: int) -> None:
        """The output topic never takes it, so it has to become a dead letter."""
        at = next(existing(self.kafka.committed.get(partition, 0) + ahead))
        self.kafka.refuses.add(Numbered(self.kafka.life, partition.index, at, 0).id)

    @rule()
    @precondition(lambda self: not self.hanging)
    def calls_hang(self) -> None:
        self.hanging = True
        self.loop.hold_threads()

    @rule()
    @precondition(lambda self: self.hanging)
    def calls_return(self) -> None:
        self.hanging = False
        self.loop.release_threads()
        self.do(settled())

    @rule(room=st.sampled_from([2, 5, END]), taken=st.integers(0, 2))
    def queue(self, room: int, taken: int) -> None:
        """The producer's queue takes ``room`` records, and brokers take ``taken`` of them at a time."""
        self.kafka.room, self.kafka.taken = room, taken

    @rule()
    def flush(self) -> None:
        self.loop.create_task(self.rig.stage.flush())
        self.do(settled())

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    # ── the topic ────────────────────────────────────────────────────────────

    @rule(partition=partitions, count=counts)
    def records_are_deleted(self, partition: Partition, count: int) -> None:
        low = self.kafka.low.get(partition, 0)
        low_now = min(low + count, self.kafka.high.get(partition, END))
        self.kafka.low[partition] = low_now
        self.lost |= {
            Numbered(self.kafka.life, partition.index, offset, 0).id for offset in range(low, low_now)
        }

    @rule(high=st.integers(0, 20), offsets_too=st.booleans())
    def the_topic_is_created_again(self, high: int, offsets_too: bool) -> None:
        """Kafka deletes the group's offsets with the topic, though perhaps later."""
        self.kafka.recreate(high)
        self.produced_until = dict.fromkeys(PARTITIONS, 1)
        if offsets_too:
            self.the_offsets_are_deleted()

    @rule()
    @precondition(lambda self: self.kafka.life > 1)
    def the_offsets_are_deleted(self) -> None:
        for partition in PARTITIONS:
            if not self.fits(partition):
                self.kafka.committed.pop(partition, None)
                self.kafka.texts.pop(partition, None)

    @rule(partition=partitions, count=counts)
    def records_are_produced(self, partition: Partition, count: int) -> None:
        if partition in self.kafka.high:
            self.kafka.high[partition] += count

    @rule()
    def a_person_looks(self) -> None:
        """The page of the worker asks stopped partitions to start again."""

        async def look() -> None:
            self.rig.stage.look()
            self.rig.stage.look_now()

        self.do(look())

    def fits(self, partition: Partition) -> bool:
        """Return whether the committed offset belongs to the topic as it is now."""
        known = Committed.parse(self.kafka.texts.get(partition, "")).topic_id
        return known in ("", self.kafka.topic_id)

    def readable(self, partition: Partition, offset: int) -> bool:
        return self.kafka.low.get(partition, 0) <= offset <= self.kafka.high.get(partition, END)

    # ── what always holds ────────────────────────────────────────────────────────────

    @invariant()
    def no_record_comes_out_twice(self) -> None:
        ids = list(map(_id, self.kafka.visible))
        assert len(ids) == len(set(ids)), sorted(id for id in ids if ids.count(id) > 1)

    @invariant()
    def nothing_unforeseen_happens(self) -> None:
        failures = [step.error for step in self.kafka.trace if isinstance(step, Failed)]
        assert failures == [], failures

    def teardown(self) -> None:
        try:
            if hasattr(self, "rig"):
                self.loop.run_until_complete(self.come_to_rest())
                self.no_record_comes_out_twice()
                self.nothing_unforeseen_happens()
                self.every_record_came_out()
                if self.rig.account.settle():
                    gc.collect()  # what was dropped amid an error is held by its traceback
                assert self.rig.account.settle() == 0
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(settled())
            self.loop.close()
            self.around.close()

    async def come_to_rest(self) -> None:
        """Nothing fails any more, a person mends what has stopped, and everything is read to its end."""
        self.loop.release_threads()
        self.kafka.answers.clear()
        self.kafka.begins = True
        self.kafka.room = END
        if self.callback is not None:
            await self.callback
        await asyncio.sleep(120)
        for partition in PARTITIONS:
            if partition not in self.kafka.positions:
                await self.rig.assign(partition)
            self.produce_another(partition)
        for _ in range(ROUNDS):
            self.mend()
            for partition in PARTITIONS:
                while self.behind(partition):
                    before = dict(self.fetched)
                    await self.fetched_next(partition, 6)
                    if self.fetched == before:
                        break
            await asyncio.sleep(120)
            self.rig.stage.look()
            at_rest = not self.rig.stage.stopped and not any(map(self.behind, PARTITIONS))
            if at_rest and not self.lacking():
                return

    def produce_another(self, partition: Partition) -> None:
        """Produce a record after all that were fetched: only a record shows that a topic is another one."""
        if self.readable(partition, offset := self.next_offset(partition)):
            end = next(existing(offset)) + 1
            self.produced_until[partition] = max(self.produced_until[partition], end)
            if partition in self.kafka.high:
                self.kafka.high[partition] = max(self.kafka.high[partition], end)

    def next_offset(self, partition: Partition) -> int:
        """Return the offset at which the next chunk of a partition starts."""
        position = self.kafka.positions[partition]
        return self.fetched.get((partition, position.epoch), position.offset)

    def behind(self, partition: Partition) -> bool:
        """Return whether a poll has something to hand over or to report."""
        offset = self.next_offset(partition)
        return offset < self.end(partition) or not self.readable(partition, offset)

    def end(self, partition: Partition) -> int:
        """The records before this offset have to come out."""
        return min(self.produced_until[partition], self.kafka.high.get(partition, END))

    def mend(self) -> None:
        """Give each stopped partition an offset that the topic holds, as the stage asks people to do."""
        for partition in self.rig.stage.stopped:
            low = self.kafka.low.get(partition, 0)
            if not self.fits(partition):
                del self.kafka.committed[partition], self.kafka.texts[partition]
            elif not self.readable(partition, self.kafka.committed.get(partition, low)):
                self.kafka.committed[partition], self.kafka.texts[partition] = low, ""
        self.rig.stage.look_now()

    def every_record_came_out(self) -> None:
        assert self.lacking() == set(), f"{self.lacking()} did not come out; {self.rig.stage.stopped}"

    def lacking(self) -> set[str]:
        """Return the records that have to come out and have not."""
        due = {
            Numbered(self.kafka.life, partition.index, offset, 0).id
            for partition in PARTITIONS
            for offset in takewhile(partial(gt, self.end(partition)), existing(0))
        }
        return due - self.lost - set(map(_id, self.kafka.visible))


TestEnrichTransactions = EnrichTransactions.TestCase
