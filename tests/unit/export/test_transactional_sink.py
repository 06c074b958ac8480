"""A sink in the transaction of its offsets: no plan, no listing; records, letters and offset are one step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from flagstream.chunk import Partition, Position
from flagstream.config.settings import TopicSettings
from flagstream.dead_letters import DeadLetter
from flagstream.errors import ExitCode, Fatal
from flagstream.export.budget import MemoryBudget
from flagstream.export.partition import PartitionExport
from flagstream.export.stage import ExportStage
from flagstream.export.windows import Limits
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.commit_metadata import Plan
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topics import TopicFacts
from flagstream.kafka.transactions import TransactionalProducer, TransactionRefused
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.sinks.protocol import Transaction
from flagstream.sinks.settings import SinkSettings
from flagstream.testing import RecordedTransaction
from tests.support.recording import (
    EPOCH,
    PARTITION,
    Committed,
    RecordingKafka,
    begin,
    chunk,
    destination,
    event,
)
from tests.support.virtual_time import in_virtual_time, passed, settled
from tests.unit.export.test_stage import RecordingProducer, RecordingSource

SETTINGS = KafkaSinkSettings(topic="copies", max_events=4, flush_interval=60.0)


@dataclass(frozen=True, slots=True)
class Copied:
    """Records, the reasons of dead letters, and an offset, committed as one."""

    records: int
    reasons: tuple[str, ...]
    commit: Committed


@dataclass(slots=True)
class CopyingKafka(RecordingKafka):
    """A Kafka that also takes the records of a window into its transactions."""

    copies: list[bytes | None] = field(default_factory=list)

    async def transact(
        self,
        tenure: Tenure,
        produce: Callable[[Transaction], None],
        letters: list[DeadLetter],
        offset: int,
        metadata: str,
    ) -> None:
        transaction = RecordedTransaction()
        produce(transaction)
        self.copies += [record.value for record in transaction.produced]
        reasons = tuple(letter.reason for letter in letters)
        step = Copied(len(transaction.produced), reasons, self._commit(offset, metadata))
        cast(list[object], self.trace).append(step)


class Rig:
    """A partition between a recorded Kafka and a Kafka sink."""

    def __init__(self) -> None:
        self.trace: list[Any] = []
        self.kafka = CopyingKafka(self.trace)
        limits = Limits(SETTINGS.max_events, SETTINGS.max_bytes, 1_000_000)
        self.to = destination(
            TopicSink(SETTINGS), SETTINGS, limits, self.kafka, MemoryBudget(1 << 28), name="copy"
        )

    async def begin(self, metadata: str | None = None) -> PartitionExport:
        committed = None if metadata is None else 0
        position = Position(EPOCH, 0, committed, metadata or "", 0, 1_000)
        export = begin(self.to, Tenure(PARTITION, position, self.kafka), self.kafka)
        await settled()
        return export


@in_virtual_time
async def test_a_window_is_one_step() -> None:
    """Nothing is planned, also not for the window that waits."""
    rig = Rig()
    export = await rig.begin()

    export.accept(chunk(0, 8))
    await settled()

    assert rig.trace == [Copied(4, (), Committed(4)), Copied(4, (), Committed(8))]
    assert rig.kafka.copies == [event(number) for number in range(8)]


@in_virtual_time
async def test_what_it_cannot_take_leaves_in_the_same_step() -> None:
    """The dead letter of an event without a userKey."""
    rig = Rig()
    export = await rig.begin()

    export.accept(chunk(0, 4, values={2: b'{"kind":"feature"}'}))
    await settled()

    assert rig.trace == [Copied(3, ("not_an_event",), Committed(4))]


@in_virtual_time
async def test_a_plan_of_another_sink_stops_the_partition() -> None:
    """A sink of this name that stored objects left a plan; its window may be stored already."""
    rig = Rig()
    metadata = Metadata(Plan(4, 4, "digest", "shape of a file")).text()

    export = await rig.begin(metadata)

    assert export.stopped is not None
    assert "shape of a file" in export.stopped or "plan" in export.stopped


class FencedProducer(RecordingProducer):
    """Another process has opened the same transactional.id."""

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        raise Fatal(ExitCode.FENCED, "fenced")


class Stage:
    """An export stage with a Kafka sink, a recorded consumer and a recorded producer."""

    def __init__(self, producer: type[RecordingProducer] = RecordingProducer) -> None:
        self.errors: list[BaseException] = []
        self.source = RecordingSource()
        self.producer = producer(self.source)
        self.sink = TopicSink(SETTINGS)
        self.stage = ExportStage(
            "copy",
            self.sink,
            cast(SinkSettings, SETTINGS),
            TopicSettings(output=PARTITION.topic, dead_letters="dead"),
            MemoryBudget(1 << 28),
            cast(TransactionalProducer, self.producer),
            revoke_budget=3.0,
            fail=self.errors.append,
        )

    async def begin(self, **limits: int) -> None:
        await self.stage.open(TopicFacts(limits), str)
        await self.stage.assigned([self.source.tenure(PARTITION, EPOCH)])
        await settled()

    async def feed(self, start: int, end: int, epoch: int = EPOCH) -> None:
        async def chunks() -> Any:
            yield chunk(start, end, epoch=epoch)

        await self.stage.run(chunks())
        await settled()


@in_virtual_time
async def test_the_producer_is_opened_at_the_start() -> None:
    """It ends at once what a predecessor of the same id left open."""
    rig = Stage()

    await rig.begin(copies=5_000, dead=9_000)

    assert rig.producer.opened == 1
    assert rig.sink.limit == rig.producer.limit == 5_000


@in_virtual_time
async def test_an_aborted_transaction_is_tried_again() -> None:
    """With the same records, and visible meanwhile."""
    rig = Stage()
    rig.producer.aborts = 3
    await rig.begin()

    await rig.feed(0, 4)
    assert "transaction: try again" in str(list(rig.stage.problems()))
    await passed(60)

    assert list(rig.stage.problems()) == []
    assert [topic for topic, *_ in rig.producer.records] == ["copies"] * 4
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_a_topic_that_takes_less_than_it_said_begins_the_partition_anew() -> None:
    """Its events are encoded again under the new limit, so what is too large becomes a dead letter."""
    rig = Stage()
    await rig.begin()
    rig.producer.aborts = 1
    rig.producer.limit = 2_000

    await rig.feed(0, 4)
    await settled()
    assert rig.source.rewinds == [None]
    assert rig.sink.limit == 2_000
    await rig.feed(0, 4, EPOCH + 1)

    assert rig.source.committed[PARTITION][0] == 4
    assert rig.errors == []


@in_virtual_time
async def test_a_fenced_producer_ends_the_process() -> None:
    """With an exit code of its own."""
    rig = Stage(FencedProducer)
    await rig.begin()

    await rig.feed(0, 4)

    assert [error.code for error in rig.errors if isinstance(error, Fatal)] == [ExitCode.FENCED]


class PickyProducer(RecordingProducer):
    """The topic refuses one event, and with it whatever is produced together with it."""

    refused = event(1)
    of_a_record = True

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        if any(record[:2] == ("copies", self.refused) for record in self.open_records):
            raise TransactionRefused("INVALID_RECORD", of_a_record=self.of_a_record)
        super().commit(offsets, group)

    def takes(self, topic: str, records: Sequence[Mapping[str, Any]]) -> bool:
        return not any(record["value"] == self.refused for record in records)


@in_virtual_time
async def test_an_event_that_the_topic_refuses_becomes_a_dead_letter() -> None:
    """It is found, and the others of its window are copied."""
    rig = Stage(PickyProducer)
    await rig.begin()

    await rig.feed(0, 4)
    assert rig.source.rewinds == [None]
    await rig.feed(0, 4, EPOCH + 1)

    assert [value for topic, value, _ in rig.producer.records if topic == "copies"] == [
        event(0),
        event(2),
        event(3),
    ]
    [letter] = [headers for topic, _, headers in rig.producer.records if topic == "dead"]
    assert letter["flagstream-reason"] == b"refused_by_topic"
    assert rig.source.committed[PARTITION][0] == 4


class PickierProducer(PickyProducer):
    """The topic refuses three events of four."""

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        if any(topic == "copies" and value != event(2) for topic, value, _ in self.open_records):
            raise TransactionRefused("INVALID_RECORD", of_a_record=True)
        RecordingProducer.commit(self, offsets, group)

    def takes(self, topic: str, records: Sequence[Mapping[str, Any]]) -> bool:
        return all(record["value"] == event(2) for record in records)


@in_virtual_time
async def test_more_refused_events_than_one_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search adds to what is known, until all of them are dead letters; then it is forgotten."""
    monkeypatch.setattr("flagstream.kafka.refusals.TRIES", 3)
    rig = Stage(PickierProducer)
    await rig.begin()

    for turn in range(6):
        await rig.feed(0, 4, EPOCH + turn)

    assert rig.source.committed[PARTITION][0] == 4
    assert [value for topic, value, _ in rig.producer.records if topic == "copies"] == [event(2)]
    assert len(rig.producer.records) == 4
    assert rig.sink.begin(PARTITION, 4).add([event(1)], cast(Any, chunk(4, 5).records)) == []


@in_virtual_time
async def test_a_partition_whose_transaction_fails_lets_the_others_go_first() -> None:
    """It waits for its next try without keeping anybody from theirs."""
    rig = Stage(PickyProducer)
    cast(PickyProducer, rig.producer).of_a_record = False
    await rig.begin()
    other = Partition(PARTITION.topic, PARTITION.index + 1)
    await rig.stage.assigned([rig.source.tenure(other, EPOCH)])

    await rig.feed(0, 4)
    await passed(30)

    async def chunks() -> Any:
        yield replace(chunk(0, 4, values={1: event(9)}), partition=other)

    await rig.stage.run(chunks())
    await settled()

    assert PARTITION not in rig.source.committed
    assert other in rig.source.committed
