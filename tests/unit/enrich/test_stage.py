"""The enrich stage between a recorded chunk source and a recorded producer: the order of what it does."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Chunk, Partition, Position
from flagstream.config.settings import EnrichSettings, TopicSettings
from flagstream.enrich.ingest_topic import IngestTopic
from flagstream.enrich.missing_records import OFFSET_LOOKS, OFFSET_SECONDS
from flagstream.enrich.stage import EnrichStage
from flagstream.enrich.transform import Transform
from flagstream.flags import FlagSet
from flagstream.kafka.commit_metadata import Committed, GroupStart
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Holder, Tenure
from flagstream.kafka.transactions import TransactionalProducer, TransactionRefused
from tests.support.virtual_time import in_virtual_time, settled

PARTITION = Partition("ingest", 0)
T = TypeVar("T")
EVENT = b'{"kind":"feature","userKey":"u","creationDate":1,"key":"f","value":true}'


@dataclass(frozen=True)
class Record:
    """A record without headers."""

    number: int
    content: bytes = EVENT

    def offset(self) -> int:
        return self.number

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return self.content

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


@dataclass
class Kafka:
    """The chunk source and the producer. A plain commit takes until `answered`, as in a rebalance."""

    trace: list[tuple[str, int]] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    group_start: GroupStart | None = None
    group: str = "flagstream.enrich"
    limit: int = 1_000_000
    texts: list[str] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress("enrich", PARTITION.topic))

    def open(self, keep_trying: object) -> None: ...

    async def call(self, function: Callable[[], T]) -> T:
        return function()

    def tenure(self, position: Position) -> Tenure:
        return Tenure(PARTITION, position, cast(Holder, self))

    def pause(self, partition: Partition, epoch: int) -> None:
        self.trace.append(("pause", partition.index))

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        if self.answered.is_set():
            self.trace.append(("pin", offset))
            self.texts.append(metadata)
        return self.answered.is_set()

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        self.trace.append(("rewind", len(epochs)))
        return {}

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        return self

    def begin(self) -> None: ...

    def release_delivered(self) -> None: ...

    def produce(self, topic: str, **record: object) -> None:
        self.trace.append((topic, 1))

    def produce_batch(self, topic: str, records: Sequence[object]) -> None:
        self.trace.append(("produce", len(records)))


class Producer(Kafka):
    """Its commit is that of a transaction."""

    def abort(self) -> None:
        self.trace.append(("abort", 0))

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: Any) -> None:  # type: ignore[override]
        offset, metadata = offsets[PARTITION]
        self.trace.append(("commit", offset))
        self.texts.append(metadata)


def make_stage(source: Kafka, producer: "Producer | None" = None, **settings: Any) -> EnrichStage:
    """Return the stage between ``source`` and a producer with the same trace."""
    return EnrichStage(
        EnrichSettings(**settings),
        TopicSettings(),
        Transform(FlagSet({})),
        cast(TransactionalProducer, producer or Producer(source.trace, texts=source.texts)),
        fail=lambda error: source.trace.append((str(error), 0)),
    )


@in_virtual_time
async def test_where_the_group_began_is_committed_before_any_of_its_records() -> None:
    """Under start = latest the first position is committed by itself. Repeated after a transaction has
    committed more, it would set the offset back, so no record of the partition is produced before it is
    through."""
    source = Kafka(group_start=GroupStart(1_795_000_000_000, 1))
    stage = make_stage(source, start="latest")
    await stage.open(1_000_000, lambda: True, lambda: "")
    await stage.assigned([source.tenure(Position(1, 5, None, "", 0, 5))])

    async def chunks() -> Any:
        yield Chunk(PARTITION, 1, 5, 8, [Record(5), Record(6), Record(7)])

    await stage.run(chunks())
    await settled()
    assert source.trace == []

    source.answered.set()
    await settled()
    await asyncio.sleep(1)
    assert source.trace == [("pin", 5), ("produce", 3), ("commit", 8)]


@in_virtual_time
async def test_an_offset_beyond_the_topic_asks_for_a_reset() -> None:
    """No setting goes on there, so none is recommended, also where ``on_missing_records`` is to continue."""
    source = Kafka()
    stage = make_stage(source, on_missing_records="continue")

    with capture_logs() as lines:
        await stage.assigned([source.tenure(Position(1, 500, 500, "", 0, 9))])

    assert source.trace == [("pause", 0)]
    assert "set beyond the topic's end" in stage.stopped[PARTITION]
    [line] = lines
    assert (line["event"], line["partition"]) == ("partition_stopped", "ingest-0")
    assert "on_missing_records" not in line["ways_out"]
    assert "in the group flagstream.enrich" in line["ways_out"]


@in_virtual_time
async def test_dead_letters_are_logged_when_they_are_committed() -> None:
    """With the reason, how many, and where the first one is to be found."""
    source = Kafka()
    stage = make_stage(source)
    await stage.open(1_000_000, lambda: True, lambda: "")
    await stage.assigned([source.tenure(Position(1, 5, None, "", 0, 5))])

    async def chunks() -> Any:
        yield Chunk(PARTITION, 1, 5, 8, [Record(5), Record(6, b"{"), Record(7, b"[")])

    with capture_logs() as lines:
        await stage.run(chunks())
        await settled()
        assert [line["event"] for line in lines] == []
        await asyncio.sleep(1)

    lines = [line for line in lines if line["log_level"] != "debug"]
    assert [line["event"] for line in lines] == ["dead_letters"] * len(lines)
    assert sum(line["count"] for line in lines) == 2
    assert (lines[0]["source"], lines[0]["first"]) == ("enrich", "ingest-0@6")


@in_virtual_time
async def test_a_topic_id_that_is_told_late_counts_from_then_on() -> None:
    """A broker that lags says nothing of a topic: what the next one says is kept, and a third id means
    another topic. Then nothing is committed."""
    source = Kafka()
    ids = iter(["", "old", "new"])
    stage = make_stage(source)
    await stage.open(1_000_000, lambda: True, lambda: next(ids))
    await stage.assigned([source.tenure(Position(1, 5, None, "", 0, 5))])

    async def one(chunk: Chunk) -> Any:
        yield chunk

    await stage.run(one(Chunk(PARTITION, 1, 5, 6, [Record(5)])))
    await asyncio.sleep(1)
    await stage.run(one(Chunk(PARTITION, 1, 6, 7, [Record(6)])))
    await asyncio.sleep(1)

    assert source.trace == [("produce", 1), ("commit", 6), ("produce", 1), ("abort", 0), ("rewind", 1)]
    assert Committed.parse(source.texts[0]).topic_id == "old"  # in the very commit for which it was asked


@in_virtual_time
async def test_what_is_known_of_group_and_topic_is_in_every_commit() -> None:
    """The commit says it again also if the last commit said all of it: who takes over next has only
    this one."""
    began = GroupStart(1_795_000_000_000, 2)
    source = Kafka(group_start=began)
    stage = make_stage(source)
    await stage.open(1_000_000, lambda: True, lambda: "")  # the broker does not report the id any more
    before = Committed(topic_id="known", group_start=began)
    await stage.assigned([source.tenure(Position(1, 5, 5, before.text(), 0, 9))])

    async def chunks() -> Any:
        yield Chunk(PARTITION, 1, 5, 6, [Record(5)])

    await stage.run(chunks())
    await asyncio.sleep(1)

    assert [Committed.parse(text) for text in source.texts] == [before]


@in_virtual_time
async def test_metadata_of_a_later_version_stops_the_partition() -> None:
    """A commit of this version would erase what it says."""
    source = Kafka()
    stage = make_stage(source)
    await stage.open(1_000_000, lambda: True, lambda: "")
    await stage.assigned([source.tenure(Position(1, 5, 5, '{"v":2}', 0, 9))])

    async def chunks() -> Any:
        yield Chunk(PARTITION, 1, 5, 6, [Record(5)])

    await stage.run(chunks())
    await asyncio.sleep(1)

    assert source.trace == [("pause", 0)]
    assert "version 2" in stage.stopped[PARTITION]


@in_virtual_time
async def test_partitions_that_enter_together_share_what_is_asked() -> None:
    """One of them may ask again before another has seen the answer that both waited for."""
    topic = IngestTopic("ingest")
    topic.ask = lambda: "id"

    async def ask_twice() -> list[str]:
        return [await topic.id(), await topic.id()]

    assert [*await asyncio.gather(ask_twice(), ask_twice())] == [["id", "id"]] * 2


class Recreated(Kafka):
    """The group's offset of the former topic is there for ``looks`` more rewinds."""

    looks = 0
    epoch = 1

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        [epoch] = epochs.values()
        assert epoch == self.epoch
        self.looks, self.epoch = self.looks - 1, epoch + 1
        self.trace.append(("rewind", epoch))
        if self.looks < 0:
            return {PARTITION: Position(self.epoch, 0, None, "", 0, 3)}
        return {PARTITION: Position(self.epoch, 20, 20, Committed(topic_id="old").text(), 0, 3)}


async def at_a_recreated_topic(source: Recreated) -> EnrichStage:
    """A stage that had read its partition to the end when the topic was recreated; seconds later."""
    stage = make_stage(source)
    ids = ["old"]
    await stage.open(1_000_000, lambda: True, lambda: ids[0])
    position = Position(1, 20, 20, Committed(topic_id="old").text(), 0, 20)
    await stage.assigned([source.tenure(position)])
    await settled()
    ids[0] = "new"
    await stage.records_missing(source.tenure(position), replace(position, high=3))
    await asyncio.sleep(OFFSET_LOOKS * OFFSET_SECONDS + 1)
    return stage


@in_virtual_time
@pytest.mark.parametrize("looks", [0, 3])
async def test_a_recreated_topic_is_begun_when_the_groups_offset_is_gone(looks: int) -> None:
    """Kafka deletes it with the topic, a little later perhaps. Nothing has stopped."""
    source = Recreated()
    source.looks = looks
    stage = await at_a_recreated_topic(source)

    assert stage.stopped == {}
    assert source.trace[-1] == ("rewind", looks + 1)

    async def chunks() -> Any:
        yield Chunk(PARTITION, source.epoch, 0, 3, [Record(0), Record(1), Record(2)])

    await stage.run(chunks())
    await asyncio.sleep(1)
    assert source.trace[-1] == ("commit", 3)
    assert Committed.parse(source.texts[-1]).topic_id == "new"


@in_virtual_time
async def test_an_offset_of_the_former_topic_that_stays_stops_the_partition() -> None:
    """Somebody has brought it back: it means other records."""
    source = Recreated()
    source.looks = 1_000
    stage = await at_a_recreated_topic(source)

    assert "was recreated" in stage.stopped[PARTITION]
    assert source.trace[-1] == ("pause", 0)


@in_virtual_time
async def test_deleted_records_of_the_same_topic_stop_the_partition() -> None:
    """Its id says that it is the same one."""
    source = Kafka()
    stage = make_stage(source)
    await stage.open(1_000_000, lambda: True, lambda: "same")
    position = Position(1, 5, 5, Committed(topic_id="same").text(), 8, 20)
    await stage.assigned([source.tenure(position)])
    await settled()

    assert "records were deleted" in stage.stopped[PARTITION]
    assert source.trace == [("pause", 0)]


class RefusingProducer(Producer):
    """A topic refuses each transaction; meanwhile the partition is lost."""

    lose: Callable[[], None]

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: Any) -> None:  # type: ignore[override]
        self.lose()
        raise TransactionRefused("no right", of_a_record=False)


@in_virtual_time
async def test_a_refused_transaction_of_a_lost_partition_is_no_problem_of_ours() -> None:
    """Nothing that this worker does would clear it."""
    source = Kafka()
    producer = RefusingProducer(source.trace)
    stage = make_stage(source, producer)
    producer.lose = lambda: stage._forget([PARTITION])
    await stage.open(1_000_000, lambda: True, lambda: "")
    await stage.assigned([source.tenure(Position(1, 5, None, "", 0, 5))])

    async def chunks() -> Any:
        yield Chunk(PARTITION, 1, 5, 6, [Record(5)])

    await stage.run(chunks())
    await asyncio.sleep(1)

    assert not stage._setbacks.alone(PARTITION)
    assert list(stage._setbacks.problems()) == []
