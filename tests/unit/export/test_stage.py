"""The stage around the partitions of one sink: retries, restarts, dead letters, and what people see."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Chunk, Headers, Partition, Position, Record
from flagstream.config.settings import TopicSettings
from flagstream.errors import (
    ObjectConflict,
    OwnershipLost,
    PartitionStopped,
    SinkRefused,
    SinkUnavailable,
    TransactionAborted,
    TransactionUncertain,
)
from flagstream.export.budget import MemoryBudget
from flagstream.export.sink_calls import LONGEST_PAUSE
from flagstream.export.stage import ExportStage
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesEncoder
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.commit_metadata import GroupStart, Plan
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topics import TopicFacts
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.operate import metrics
from flagstream.operate.health import Problem
from flagstream.outcomes import Reject
from flagstream.sinks.settings import SinkSettings
from flagstream.window import Manifest
from tests.support.recording import EPOCH, PARTITION, RecordingSink, Step, chunk
from tests.support.virtual_time import in_virtual_time, passed, settled

OTHER = Partition("evaluations", 4)
DEAD_LETTERS = "dead"
T = TypeVar("T")


@dataclass(slots=True)
class RecordingSource:
    """A consumer that holds partitions in epochs and keeps what they commit."""

    low: int = 0
    high: int = 1_000
    fresh: bool = True
    group_start: GroupStart | None = None
    group: str = "flagstream.sink.test"
    epochs: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, tuple[int, str]] = field(default_factory=dict)
    paused: set[Partition] = field(default_factory=set)
    rewinds: list[int | None] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress("test", PARTITION.topic))

    def position(self, partition: Partition, epoch: int, to: int | None = None) -> Position:
        self.epochs[partition] = epoch
        offset, metadata = self.committed.get(partition, (None, ""))
        at = to if to is not None else offset or 0
        return Position(epoch, at, offset, metadata, self.low, self.high)

    def tenure(self, partition: Partition, epoch: int) -> Tenure:
        return Tenure(partition, self.position(partition, epoch), self)

    async def call(self, function: Callable[[], T]) -> T:
        return function()

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        self._check(partition, epoch)
        self.committed[partition] = (offset, metadata)
        return True

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        for partition, epoch in epochs.items():
            self._check(partition, epoch)
        return self

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        self.rewinds.append(to)
        return {partition: self.position(partition, epoch + 1, to) for partition, epoch in epochs.items()}

    def pause(self, partition: Partition, epoch: int) -> None:
        self.paused.add(partition)

    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int:
        self.paused.discard(partition)
        return 0

    def _check(self, partition: Partition, epoch: int) -> None:
        if self.epochs.get(partition) != epoch:
            raise OwnershipLost(f"{partition} is not held in epoch {epoch}")


@dataclass(slots=True)
class RecordingProducer:
    """A transactional producer: what it committed, and how often its next transactions are aborted."""

    source: RecordingSource
    aborts: int = 0
    uncertain: list[bool] = field(default_factory=list)
    """Transactions whose outcome is not known: whether they were committed."""
    limit: int = 1_000_000
    stable: bool = False
    opened: int = 0
    open_records: list[tuple[str, bytes | None, dict[str, bytes | None]]] = field(default_factory=list)
    records: list[tuple[str, bytes | None, dict[str, bytes | None]]] = field(default_factory=list)

    def open(self) -> None:
        self.opened += 1

    def problems(self) -> Iterator[Problem]:
        return iter(())

    def begin(self) -> None:
        self.open_records = []

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.open_records.append((topic, value, dict(headers)))

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        assert group is self.source
        if self.aborts:
            self.aborts -= 1
            raise TransactionAborted("try again")
        if self.uncertain:
            if self.uncertain.pop():
                self.source.committed.update(offsets)
            raise TransactionUncertain("topic letters: unknown")
        self.records += self.open_records
        self.source.committed.update(offsets)


class Stage:
    """An export stage between a recorded consumer, a recorded producer and a recorded sink."""

    def __init__(self, sink: type[RecordingSink] = RecordingSink, **settings: Any) -> None:
        self.trace: list[Step] = []
        self.errors: list[BaseException] = []
        self.sink = sink(self.trace)
        self.source = RecordingSource()
        self.producer = RecordingProducer(self.source)
        self.stage = ExportStage(
            "test",
            self.sink,
            SinkSettings(type="test", **{"max_events": 4, "flush_interval": 60.0, **settings}),
            TopicSettings(output=PARTITION.topic, dead_letters=DEAD_LETTERS),
            MemoryBudget(1 << 28),
            cast(TransactionalProducer, self.producer),
            revoke_budget=3.0,
            fail=self.errors.append,
        )

    async def assigned(self, *partitions: Partition) -> None:
        await self.stage.open(TopicFacts(), str)
        await self.stage.assigned([self.source.tenure(p, EPOCH) for p in partitions or (PARTITION,)])
        await settled()

    async def feed(self, *chunks: Chunk) -> None:
        async def each() -> Any:
            for one in chunks:
                yield one

        await self.stage.run(each())
        await settled()


@in_virtual_time
async def test_a_refused_delivery_is_tried_for_ever() -> None:
    """At growing intervals, a minute at most, however long it takes, and visible all the while."""
    rig = Stage()
    rig.sink.failures.extend(SinkRefused("no permission") for _ in range(100))
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    await passed(3_600)

    tried = 100 - len(rig.sink.failures)
    assert 3_600 / LONGEST_PAUSE < tried < 2 * 3_600 / LONGEST_PAUSE + 20
    [trouble] = rig.stage.problems()
    assert trouble.text.startswith("deliver evaluations-3: refused: no permission (for 60 min, next try in ")
    assert rig.source.committed[PARTITION][0] == 0
    await passed(100 * LONGEST_PAUSE)
    assert list(rig.stage.problems()) == []
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_the_sink_says_when_to_come_back() -> None:
    """A sink that is busy and names a time is asked then, not before."""
    rig = Stage()
    rig.sink.failures.append(SinkUnavailable("busy", retry_after=500.0))
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    await passed(499)
    assert len(rig.trace) == 1
    await passed(2)

    assert len(rig.trace) == 2
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_what_a_sink_does_not_foresee_is_tried_again() -> None:
    """An exception of a client library loses no window and does not end the process. Its text, which
    may quote a secret, is not handed on.
    """
    rig = Stage()
    rig.sink.failures.append(cast(Any, KeyError("a token")))
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    [trouble] = rig.stage.problems()
    assert trouble.text.startswith(
        "deliver evaluations-3: unavailable: KeyError, which the sink did not foresee, at "
    )
    assert "recording.py:" in trouble.text
    assert "a token" not in trouble.text
    await passed(10)

    assert rig.source.committed[PARTITION][0] == 4
    assert rig.errors == []


@in_virtual_time
async def test_a_sink_that_cannot_be_opened_is_tried_for_ever() -> None:
    """Its partitions are held meanwhile, with the first chunk of each, and nothing is asked of the sink; it
    says why. Once it is open all that waits is exported.
    """
    rig = Stage()
    rig.sink.failures_to_open.extend(SinkRefused("no such bucket") for _ in range(5))

    await rig.assigned()
    await rig.feed(chunk(0, 4))

    assert rig.trace == []
    assert rig.source.paused == {PARTITION}
    [problem] = rig.stage.problems()
    assert problem.kind == "sink_refused"
    assert problem.text.startswith("open: refused: no such bucket")
    await passed(120)
    assert not rig.sink.failures_to_open
    assert list(rig.stage.problems()) == []
    assert rig.source.paused == set()
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_latest_is_decided_before_the_sink_opens() -> None:
    """It may stay shut for longer than the process lives: the next one must not begin later, but still has to
    ask what the sink holds.
    """
    rig = Stage()
    rig.source.group_start = GroupStart(1_700_000_000_000, 1)
    rig.sink.failures_to_open.extend(SinkRefused("no such bucket") for _ in range(100))

    await rig.assigned()
    await settled()

    offset, metadata = rig.source.committed[PARTITION]
    assert (offset, Metadata.parse(metadata).group_start) == (0, rig.source.group_start)
    assert Metadata.parse(metadata).unasked(offset)


@in_virtual_time
async def test_a_person_can_end_a_pause() -> None:
    """A sink that was mended is tried at once, not when its turn comes."""
    rig = Stage()
    rig.sink.failures.extend(SinkRefused("no permission") for _ in range(9))
    await rig.assigned()
    await rig.feed(chunk(0, 4))
    await passed(100)
    rig.sink.failures.clear()

    rig.stage.look_now()
    await settled()

    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_a_partition_that_stopped_looks_again() -> None:
    """By itself after a while, and at once when a person says so. Until something of it is committed it
    counts as stopped; the other partitions go on.
    """
    rig = Stage()
    rig.sink.failures.extend(cast(Any, PartitionStopped("410 Gone")) for _ in range(2))
    await rig.assigned()
    await rig.feed(chunk(0, 4))
    rig.stage.look()
    assert rig.stage.stopped == {PARTITION: "410 Gone"}

    rig.stage.look_now()
    await settled()
    assert rig.stage.stopped == {PARTITION: "410 Gone"}
    await rig.feed(chunk(0, 4, epoch=EPOCH + 1))
    assert not rig.sink.failures
    assert rig.stage.stopped == {PARTITION: "410 Gone"}
    for _ in range(125):
        await passed(1)
        rig.stage.look()
    await rig.feed(chunk(0, 4, epoch=EPOCH + 2))

    assert rig.source.committed[PARTITION][0] == 4
    assert rig.stage.stopped == {}


@in_virtual_time
async def test_no_delivery_starts_when_the_group_may_have_gone_on() -> None:
    """The last poll is older than the session: what we hold may be another's by now."""
    rig = Stage()
    await rig.assigned()

    rig.source.fresh = False
    await rig.feed(chunk(0, 4))
    await passed(100)
    assert rig.trace == []
    rig.source.fresh = True
    await passed(1)

    assert len(rig.trace) == 1


@in_virtual_time
async def test_one_partition_that_fails_holds_up_no_other() -> None:
    """Each waits for its own window."""
    rig = Stage()
    rig.sink.failures.append(SinkUnavailable("busy", retry_after=500.0))
    await rig.assigned(PARTITION, OTHER)

    await rig.feed(chunk(0, 4))
    other = chunk(0, 4)
    await rig.feed(Chunk(OTHER, EPOCH, other.start, other.end, other.records))

    assert rig.source.committed[OTHER][0] == 4
    assert rig.source.committed[PARTITION][0] == 0


@in_virtual_time
async def test_a_refused_window_becomes_dead_letters_with_its_offset() -> None:
    """From the refusal to the transaction and on to the next window, which the sink gets as usual. The
    refusal is an error in the log, and counted."""
    rig = Stage(on_refused="dead_letter")
    rig.sink.failures.append(SinkRefused("no permission"))
    await rig.assigned()

    refusals = metrics.DELIVERY_FAILURES.labels("test", "refused")._value
    before = refusals.get()
    with capture_logs() as lines:
        await rig.feed(chunk(0, 4))
    assert rig.source.rewinds == [None]
    await rig.feed(chunk(0, 4, epoch=EPOCH + 1), chunk(4, 8, epoch=EPOCH + 1))

    assert [(topic, value) for topic, value, _ in rig.producer.records] == [
        (DEAD_LETTERS, record.value()) for record in chunk(0, 4).records
    ]
    assert {headers["flagstream-error"] for _, _, headers in rig.producer.records} == {b"no permission"}
    assert rig.source.committed[PARTITION] == (8, Metadata().text())
    assert [str(held) for held in rig.sink.objects] == ["evaluations-3-0-8"]
    assert rig.stage.stopped == {}
    assert refusals.get() == before + 1
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["range"], line["events"]) == ("window_refused", "evaluations-3-0-4", 4)
    assert line["error"] == "no permission"


DENIED = SinkRefused("no right to write", denied=True)


@in_virtual_time
async def test_a_denial_that_is_over_in_time_makes_no_dead_letters() -> None:
    """Rights that are taken away and given back within `refused_after` are reported at once, and cost
    nothing but time.
    """
    rig = Stage(on_refused="dead_letter", refused_after="300s")
    rig.sink.failures.extend([DENIED] * 8)  # about two minutes of tries
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    [trouble] = rig.stage.problems()
    assert "refused: no right to write; windows become dead letters if this lasts 300s" in trouble.text
    await passed(600)

    assert rig.producer.records == []
    assert [str(held) for held in rig.sink.objects] == ["evaluations-3-0-4"]


@in_virtual_time
async def test_a_denial_that_lasts_counts_as_a_refusal() -> None:
    """After `refused_after` the window becomes dead letters; the one after it, which is denied too, does not
    wait again.
    """
    rig = Stage(on_refused="dead_letter", refused_after="300s")
    rig.sink.failures.extend([DENIED] * 100)
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    await passed(299)
    assert rig.source.rewinds == []
    await passed(61)
    assert rig.source.rewinds == [None]
    await rig.feed(chunk(0, 8, epoch=EPOCH + 1))
    assert rig.source.rewinds == [None, None]
    await rig.feed(chunk(4, 8, epoch=EPOCH + 2))

    assert len(rig.producer.records) == 8
    assert rig.source.committed[PARTITION][0] == 8


@in_virtual_time
async def test_a_denial_never_counts_at_once() -> None:
    """Also without a time to last: the next try has a new client, which is asked first."""
    rig = Stage(on_refused="dead_letter", refused_after=0)
    rig.sink.failures.append(DENIED)
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    await passed(10)

    assert rig.producer.records == []
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_an_outage_in_between_begins_the_time_again() -> None:
    """What answers nothing does not say that we are still denied."""
    rig = Stage(on_refused="dead_letter", refused_after="30s")
    rig.sink.failures.extend([DENIED, SinkUnavailable("down", retry_after=60.0), DENIED])
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    await passed(200)

    assert rig.producer.records == []
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_an_aborted_transaction_is_repeated() -> None:
    """Whatever was in it is put into the next one; nothing of it became visible."""
    rig = Stage()
    rig.producer.aborts = 3
    await rig.assigned()

    with capture_logs() as lines:
        await rig.feed(chunk(0, 4, values={1: None}))
        await passed(60)

    assert len(rig.producer.records) == 1
    [line] = [line for line in lines if line["event"] == "dead_letters"]
    assert (line["sink"], line["reason"], line["count"]) == ("test", "tombstone", 1)
    assert line["first"] == "evaluations-3@1"
    assert rig.producer.opened == 1
    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
@pytest.mark.parametrize("committed", [False, True])
async def test_a_transaction_of_unknown_outcome_is_shown_until_it_is_known(committed: bool) -> None:
    """The partition begins again at what is committed. While the dead-letter topic is missing that goes
    round, and the page says so all the while."""
    rig = Stage()
    rig.producer.uncertain = [committed]
    await rig.assigned()
    await rig.feed(chunk(0, 4, values={1: None}))
    await passed(1)

    texts = [problem.text for problem in rig.stage.problems()]
    if committed:
        assert texts == []
        return
    assert [problem.kind for problem in rig.stage.problems()] == ["transaction"]
    assert "topic letters: unknown" in texts[0]
    await rig.feed(chunk(0, 4, values={1: None}, epoch=EPOCH + 1))
    await passed(1)
    assert rig.source.committed[PARTITION][0] == 4
    assert "transaction" not in [problem.kind for problem in rig.stage.problems()]


@in_virtual_time
async def test_dead_letters_of_a_lost_partition_are_not_sent() -> None:
    """The successor rejects the same records."""
    rig = Stage()
    rig.producer.aborts = 1
    await rig.assigned()

    await rig.feed(chunk(0, 4, values={1: None}))
    rig.source.epochs.clear()
    await rig.stage.lost([PARTITION])
    await passed(60)

    assert rig.producer.records == []
    assert rig.errors == []


@in_virtual_time
async def test_deleted_records_stop_the_partition() -> None:
    """The committed offset lies before the topic's first record: it waits for a person, and says so."""
    rig = Stage()
    rig.source.committed[PARTITION] = (5, Metadata().text())
    rig.source.low = 8

    await rig.assigned()

    assert list(rig.stage.stopped) == [PARTITION]
    assert rig.source.paused == {PARTITION}
    assert rig.source.rewinds == []


@in_virtual_time
async def test_deleted_records_are_passed_over_if_told_so() -> None:
    """The next window begins at the topic's first record and is named from the committed offset."""
    rig = Stage(on_missing_records="continue")
    rig.source.committed[PARTITION] = (5, Metadata().text())
    rig.source.low = 8

    await rig.assigned()
    await rig.feed(chunk(8, 12, epoch=EPOCH + 1))

    assert rig.source.rewinds == [8]
    assert [str(held) for held in rig.sink.objects] == ["evaluations-3-5-12"]


def overtaken(rig: Stage, at: int, low: int) -> Position:
    """What the consumer reports when the records from `at` to `low` were deleted before it fetched them."""
    rig.source.low = low
    committed, metadata = rig.source.committed.get(PARTITION, (None, ""))
    return Position(rig.source.epochs[PARTITION], at, committed, metadata, low, 1_000)


@in_virtual_time
async def test_what_is_held_is_delivered_before_the_partition_goes_on_after_a_hole() -> None:
    """Retention overtakes a sink that is down: two windows, a third that fills and what waits after it are
    the only copies by then. They are delivered when the sink is up again, and then the hole is stepped over.
    """
    rig = Stage(on_missing_records="continue")
    rig.sink.failures.append(SinkUnavailable("down", retry_after=500.0))
    await rig.assigned()
    await rig.feed(chunk(0, 4), chunk(4, 11), chunk(11, 14))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 14, 20))
    await passed(100)
    assert rig.source.rewinds == []
    assert rig.source.paused == {PARTITION}
    await passed(500)
    await rig.feed(chunk(20, 24, epoch=EPOCH + 1))

    assert rig.source.rewinds == [20]
    assert [(held.start, held.end) for held in rig.sink.objects] == [
        (0, 4),
        (4, 8),
        (8, 12),
        (12, 14),
        (14, 24),
    ]
    assert rig.source.committed[PARTITION][0] == 24
    assert rig.errors == []


@in_virtual_time
async def test_what_is_held_is_delivered_before_the_partition_stops() -> None:
    """A person may decide to go on; what was in memory must not be lost by then. The reason shows at once."""
    rig = Stage()
    rig.sink.failures.append(SinkUnavailable("down", retry_after=500.0))
    await rig.assigned()
    await rig.feed(chunk(0, 7))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 7, 20))
    assert list(rig.stage.stopped) == [PARTITION]
    await passed(600)

    assert [(held.start, held.end) for held in rig.sink.objects] == [(0, 4), (4, 7)]
    assert list(rig.stage.stopped) == [PARTITION]
    assert rig.source.rewinds == []


@in_virtual_time
async def test_a_chunk_that_is_under_way_is_delivered_before_the_hole() -> None:
    """It was fetched, but had not arrived when the consumer learned of the hole."""
    rig = Stage(on_missing_records="continue")
    await rig.assigned()
    await rig.feed(chunk(0, 2))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 6, 20))
    await passed(1)
    assert rig.source.rewinds == []
    await rig.feed(chunk(2, 6))

    assert rig.source.committed[PARTITION][0] == 6
    assert rig.source.rewinds == [20]


@in_virtual_time
async def test_a_partition_that_is_lost_meanwhile_does_not_go_on() -> None:
    """Its next owner finds the hole by itself."""
    rig = Stage(on_missing_records="continue")
    rig.sink.failures.append(SinkUnavailable("down", retry_after=500.0))
    await rig.assigned()
    await rig.feed(chunk(0, 7))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 7, 20))
    await passed(10)
    await rig.stage.lost([PARTITION])
    await passed(600)

    assert rig.source.rewinds == []
    assert rig.errors == []


@in_virtual_time
async def test_a_conflict_in_what_is_held_stops_the_partition_at_the_hole() -> None:
    """A person has to act on it; nothing after it is stored before."""
    rig = Stage(on_missing_records="continue")
    rig.sink.failures += [SinkUnavailable("down", retry_after=500.0), ObjectConflict("something else")]
    await rig.assigned()
    await rig.feed(chunk(0, 4), chunk(4, 11), chunk(11, 14))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 14, 20))
    await passed(600)
    await rig.feed(chunk(20, 24, epoch=EPOCH + 1))

    assert rig.stage.stopped == {PARTITION: "something else"}
    assert rig.source.rewinds == []
    assert rig.sink.objects == {}
    assert rig.source.committed[PARTITION][0] == 0


AVRO = b"\x0efeature"


@in_virtual_time
@pytest.mark.parametrize("goes_on", ["continue", "stop"])
async def test_windows_before_a_record_that_stops_the_partition_at_a_hole_are_delivered(goes_on: str) -> None:
    """They are the only copies by then. The record shows as the reason, and is not stepped over."""
    rig = Stage(on_missing_records=goes_on)
    rig.sink.failures.append(SinkUnavailable("down", retry_after=500.0))
    await rig.assigned()
    await rig.feed(chunk(0, 4), chunk(4, 8), chunk(8, 11), chunk(11, 14, values={12: AVRO}))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 14, 20))
    await passed(600)

    assert [(held.start, held.end) for held in rig.sink.objects] == [(0, 4), (4, 8), (8, 12)]
    assert rig.source.committed[PARTITION][0] == 12
    assert "offset 12" in rig.stage.stopped[PARTITION]
    assert rig.source.rewinds == []
    assert rig.errors == []


@in_virtual_time
async def test_a_repeated_window_whose_end_was_deleted_meanwhile_goes_on_without_it() -> None:
    """The plan's end is fixed, so its records cannot come: it is taken over again after the hole."""
    rig = Stage(on_missing_records="continue")
    plan = Plan(10, 10, "digest", "shape")
    rig.source.committed[PARTITION] = (0, Metadata(plan).text())
    await rig.assigned()
    await rig.feed(chunk(0, 4))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), overtaken(rig, 4, 8))
    await settled()
    await rig.feed(chunk(8, 10, epoch=EPOCH + 1))

    assert rig.source.rewinds == [8]
    assert [(held.start, held.end, found.records) for held, found in rig.sink.objects.items()] == [(0, 10, 2)]


@in_virtual_time
async def test_what_a_cut_topic_leaves_in_memory_is_not_delivered() -> None:
    """The topic ends before our next offset: other records may get the offsets that we would commit."""
    rig = Stage(flush_interval=3_000.0)
    await rig.assigned()
    await rig.feed(chunk(0, 3))

    await rig.stage.records_missing(rig.source.tenure(PARTITION, EPOCH), Position(EPOCH, 3, None, "", 0, 1))
    await passed(600)

    assert rig.sink.objects == {}
    assert list(rig.stage.stopped) == [PARTITION]


@in_virtual_time
async def test_an_offset_beyond_the_topic_stops_even_if_told_to_go_on() -> None:
    """The topic was cut or recreated: going on at its first record under names of its own would overlap."""
    rig = Stage(on_missing_records="continue")
    rig.source.committed[PARTITION] = (5_000, Metadata().text())

    await rig.assigned()
    await rig.feed(chunk(0, 4, epoch=EPOCH + 1))

    assert PARTITION in rig.stage.stopped
    assert rig.sink.objects == {}


@in_virtual_time
@pytest.mark.parametrize("at", [5, 5_000])
async def test_a_stopped_partition_names_a_way_out_that_works(at: int) -> None:
    """``on_missing_records`` goes on after a hole, but not where nothing follows: an offset has to be
    reset."""
    rig = Stage()
    rig.source.committed[PARTITION] = (at, Metadata().text())
    rig.source.low = 8

    with capture_logs() as lines:
        await rig.assigned()

    [line] = [line for line in lines if line["event"] == "partition_stopped"]
    assert line["partition"] == "evaluations-3"
    assert ("on_missing_records" in line["ways_out"]) == (at < 8)
    assert ("in the group flagstream.sink.test" in line["ways_out"]) == (at > 8)
    assert ("set beyond the topic's end" in line["problem"]) == (at > 8)


@in_virtual_time
async def test_a_revoke_takes_no_longer_than_its_budget() -> None:
    """The whole group waits for it; what is not delivered by then is the next owner's."""
    rig = Stage()
    rig.sink.failures.append(SinkUnavailable("busy", retry_after=500.0))
    await rig.assigned()
    await rig.feed(chunk(0, 4))

    await rig.stage.revoked([PARTITION])
    await passed(1_000)

    assert len(rig.trace) == 1
    assert Metadata.parse(rig.source.committed[PARTITION][1]).plan is not None


class SlowToFinish(RecordingSink):
    """Its encoders write down each call of ``finish``, and end it only when the event loop says so."""

    def __init__(self, trace: list[Step]) -> None:
        super().__init__(trace)
        self.finishing = threading.Event()
        self.may_finish = threading.Event()
        self.finished = 0

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        sink = self

        class Encoder(JsonLinesEncoder):
            def finish(self, manifest: Manifest) -> Sequence[bytes]:
                sink.finished += 1
                sink.finishing.set()
                assert sink.may_finish.wait(30), "the event loop stands still"
                return super().finish(manifest)

        return Encoder(Compression("none", 1).output())


def test_the_event_loop_runs_on_while_a_window_is_encoded() -> None:
    """A window of thousands of objects takes seconds to finish: heartbeats and health are answered."""
    rig = Stage(SlowToFinish, max_events=100)
    sink = cast(SlowToFinish, rig.sink)
    sink.failures.append(SinkUnavailable("down", retry_after=0))

    async def export() -> None:
        await rig.assigned()
        feeding = asyncio.create_task(rig.feed(chunk(0, 100)))
        assert await asyncio.to_thread(sink.finishing.wait, 30)
        sink.may_finish.set()  # by the loop, which would be in ``finish`` otherwise
        await feeding
        await rig.stage.drain(asyncio.get_running_loop().time() + 30)

    asyncio.run(export())

    assert rig.source.committed[PARTITION][0] == 100


@in_virtual_time
async def test_a_window_is_encoded_once_however_often_it_is_delivered() -> None:
    """Tries of a delivery share one payload."""
    rig = Stage(SlowToFinish)
    sink = cast(SlowToFinish, rig.sink)
    sink.may_finish.set()
    sink.failures.extend(SinkUnavailable("down") for _ in range(3))
    await rig.assigned()

    await rig.feed(chunk(0, 4))
    await passed(60)

    assert rig.source.committed[PARTITION][0] == 4
    assert len(rig.trace) == 4
    assert sink.finished == 1


@in_virtual_time
async def test_draining_delivers_every_partition() -> None:
    """At SIGTERM the windows of all partitions are closed and delivered."""
    rig = Stage()
    await rig.assigned(PARTITION, OTHER)
    other = chunk(0, 2)
    await rig.feed(chunk(0, 2), Chunk(OTHER, EPOCH, other.start, other.end, other.records))

    await rig.stage.drain(deadline=20.0)

    assert {partition: offset for partition, (offset, _) in rig.source.committed.items()} == {
        PARTITION: 2,
        OTHER: 2,
    }


class Tripping(RecordingSink):
    """Its encoders raise at an event of the user "trip"."""

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        class Encoder(JsonLinesEncoder):
            def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
                if any(b"trip" in value for value in values):
                    raise SystemError("nobody foresaw this")
                return super().add(values, records)

        return Encoder(Compression("none", 1).output())


@in_virtual_time
async def test_what_raises_in_a_partition_ends_the_process_and_nothing_of_it_is_drained() -> None:
    """The chunk after it is not taken in its place, and its offset stays; others are drained as ever."""
    rig = Stage(Tripping, max_events=100)
    await rig.assigned(PARTITION, OTHER)
    other = chunk(0, 2)

    await rig.feed(
        chunk(0, 2),
        chunk(2, 4, values={3: b'{"kind":"trip"}'}),
        chunk(4, 6),
        Chunk(OTHER, EPOCH, other.start, other.end, other.records),
    )
    await rig.stage.drain(deadline=20.0)

    assert [str(error) for error in rig.errors] == ["nobody foresaw this"]
    assert {partition: offset for partition, (offset, _) in rig.source.committed.items()} == {OTHER: 2}
    assert [str(held) for held in rig.sink.objects] == ["evaluations-4-0-2"]


@in_virtual_time
async def test_a_window_refused_during_a_revoke_harms_nobody() -> None:
    """It would begin again to become dead letters, but it goes to an owner who finds the plan."""
    rig = Stage(on_refused="dead_letter")
    rig.sink.failures.extend([SinkUnavailable("down"), SinkRefused("no permission")])
    await rig.assigned()
    await rig.feed(chunk(0, 4))

    await rig.stage.revoked([PARTITION])

    assert rig.errors == []


@in_virtual_time
async def test_a_rebalance_during_the_last_drain_harms_nobody() -> None:
    """An ordinary rolling restart: what is being finished is taken away meanwhile."""
    rig = Stage()
    rig.sink.failures.extend(SinkUnavailable("down") for _ in range(50))
    await rig.assigned(PARTITION, OTHER)
    await rig.feed(chunk(0, 4))
    drain = asyncio.create_task(rig.stage.drain(asyncio.get_running_loop().time() + 20))
    await settled()

    await rig.stage.revoked([OTHER])
    await drain

    assert rig.errors == []


@in_virtual_time
async def test_a_partition_that_is_gone_fails_no_longer() -> None:
    """Health speaks of partitions that are ours."""
    rig = Stage()
    rig.sink.unlisted = SinkUnavailable("down")
    await rig.assigned()
    await passed(5)
    assert list(rig.stage.problems())

    await rig.stage.revoked([PARTITION])
    await passed(100)

    assert list(rig.stage.problems()) == []
