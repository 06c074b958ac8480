"""One partition on its way to one sink, asserted as the ordered trace of what it does to Kafka and sink."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flagstream.chunk import Partition, Position, Record
from flagstream.errors import ObjectConflict, RangesRefused, SinkRefused, SinkUnavailable
from flagstream.export.budget import WINDOW_OVERHEAD, MemoryBudget
from flagstream.export.destination import Hole
from flagstream.export.partition import PartitionExport
from flagstream.export.restarts import RefusedWindow
from flagstream.export.windows import Limits
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesEncoder
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.commit_metadata import GroupStart, Plan
from flagstream.kafka.tenure import Tenure
from flagstream.memory import Account, MemoryShare, Weight
from flagstream.operate.metrics import REGISTRY
from flagstream.outcomes import Reject
from flagstream.sinks.settings import SinkSettings
from flagstream.window import ContentDigest, Manifest, OffsetRange
from tests.support.recording import (
    EPOCH,
    PARTITION,
    RETRY_SECONDS,
    Broke,
    Committed,
    Failed,
    Found,
    Paused,
    Planned,
    Put,
    RecordingKafka,
    RecordingSink,
    Restarted,
    Resumed,
    Step,
    Transacted,
    begin,
    chunk,
    destination,
    event,
)
from tests.support.virtual_time import in_virtual_time, passed, settled

FLUSH_SECONDS = 60.0
MIB = 1024**2
REFUSED = SinkRefused("no permission")


class Rig:
    """A partition between a recorded Kafka and a recorded sink, both of which write into `trace`."""

    def __init__(
        self,
        *,
        max_events: int = 100,
        max_bytes: int = 64 * MIB,
        memory: int = 256 * MIB,
        topic_id: str = "",
        fingerprint: str = "shape",
        **settings: Any,
    ) -> None:
        self.trace: list[Step] = []
        self.sink = RecordingSink(self.trace, fingerprint)
        self.kafka = RecordingKafka(self.trace, topic=topic_id)
        self.budget = MemoryBudget(memory)
        self.settings = SinkSettings(type="test", flush_interval=FLUSH_SECONDS, **settings)
        self.limits = Limits(max_events, max_bytes, MIB)
        self.give(self.sink)

    def give(self, sink: RecordingSink) -> None:
        """Export to this sink."""
        self.sink = sink
        self.to = destination(sink, self.settings, self.limits, self.kafka, self.budget)

    async def begin(
        self,
        offset: int = 0,
        *,
        committed: int | None = None,
        metadata: str = "",
        low: int = 0,
        high: int = 1_000,
        refused: SinkRefused | None = None,
        partition: Partition = PARTITION,
    ) -> PartitionExport:
        """The partition as assigned at `offset`, or at what was committed, once it has been taken over."""
        at = committed if committed is not None and offset == 0 else offset
        self.kafka.at = at
        position = Position(EPOCH, at, committed, metadata, low, high)
        window = None if refused is None else RefusedWindow(refused, committed)
        export = begin(self.to, Tenure(partition, position, self.kafka), self.kafka, window)
        await settled()
        return export

    async def resume_from(self, metadata: Metadata, committed: int, **more: Any) -> PartitionExport:
        """The partition as taken over from an owner that committed this."""
        return await self.begin(committed=committed, metadata=metadata.text(), **more)

    def hold(self, start: int, end: int) -> None:
        """The sink holds this window of the events that their offsets identify."""
        manifest = Manifest(OffsetRange(PARTITION, start, end), end - start, digest(start, end), "shape")
        self.sink.objects[manifest.range] = manifest

    @property
    def puts(self) -> list[str]:
        return [step.name for step in self.trace if isinstance(step, Put)]


def digest(start: int, end: int) -> str:
    content = ContentDigest()
    content.update(event(offset) for offset in range(start, end))
    return content.hexdigest()


def plan(start: int, end: int, config: str = "shape") -> Plan:
    return Plan(end, end - start, digest(start, end), config)


def closed_by(reason: str) -> float:
    labels = {"sink": "test", "closed_by": reason}
    return REGISTRY.get_sample_value("flagstream_export_windows_total", labels) or 0.0


def name(start: int, end: int) -> str:
    return f"evaluations-3-{start}-{end}"


# ── plan, deliver, commit ──────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_a_window_is_planned_then_put_then_committed() -> None:
    """The cut is durable before anything is written, and the offset moves only after it is stored."""
    rig = Rig()
    export = await rig.begin()

    export.accept(chunk(0, 100))
    await settled()

    assert rig.trace == [Planned(0, 100), Put(name(0, 100)), Committed(100)]


@in_virtual_time
async def test_a_failing_sink_has_no_commit() -> None:
    """What is not delivered is not committed, however often it is tried; the plan stays as it was."""
    rig = Rig()
    rig.sink.failures.extend(SinkUnavailable("down") for _ in range(100))
    export = await rig.begin()

    export.accept(chunk(0, 100))
    await passed(50.5 * RETRY_SECONDS)

    assert rig.trace == [Planned(0, 100), *[Failed(name(0, 100), "SinkUnavailable")] * 51]


@in_virtual_time
async def test_a_sink_that_recovers_goes_on_with_the_same_window() -> None:
    """The window that failed is the one that is delivered, and once."""
    rig = Rig()
    rig.sink.failures.extend([SinkUnavailable("down"), SinkRefused("no permission")])
    export = await rig.begin()

    export.accept(chunk(0, 100))
    await passed(5 * RETRY_SECONDS)

    failed = [Failed(name(0, 100), "SinkUnavailable"), Failed(name(0, 100), "SinkRefused")]
    assert rig.trace == [Planned(0, 100), *failed, Put(name(0, 100)), Committed(100)]


@in_virtual_time
async def test_a_commit_carries_the_plan_of_the_window_behind() -> None:
    """Two windows cost three commits, not four."""
    rig = Rig(max_events=2)
    export = await rig.begin()

    export.accept(chunk(0, 4))
    await settled()

    assert rig.trace == [
        Planned(0, 2),
        Put(name(0, 2)),
        Committed(2, then=Planned(2, 4)),
        Put(name(2, 4)),
        Committed(4),
    ]


@in_virtual_time
async def test_a_plan_says_what_it_will_deliver() -> None:
    """End, count, digest and the sink's fingerprint stand beside the offset, in less than Kafka's limit."""
    rig = Rig(max_events=4, topic_id="topic-id", fingerprint="f" * 64)
    export = await rig.begin()

    export.accept(chunk(0, 6, without=[2, 3]))
    await settled()

    assert json.loads(rig.kafka.texts[0]) == {
        "v": 1,
        "end": 6,
        "n": 4,
        "digest": _digest_of([0, 1, 4, 5]),
        "cfg": "f" * 64,
        "tid": "topic-id",
    }
    assert json.loads(rig.kafka.texts[1]) == {"v": 1, "tid": "topic-id"}
    assert len(rig.kafka.texts[0]) < 4_095


def _digest_of(offsets: list[int]) -> str:
    content = ContentDigest()
    content.update(event(offset) for offset in offsets)
    return content.hexdigest()


@in_virtual_time
async def test_when_the_group_began_is_kept_in_every_commit() -> None:
    """A start at "latest" has to mean the same moment for a partition that is added later."""
    rig = Rig(max_events=2)
    rig.kafka.group_start = GroupStart(1_700_000_000_000, 8)
    export = await rig.begin()

    export.accept(chunk(0, 4))
    await settled()

    assert {json.loads(text)["since"] for text in rig.kafka.texts} == {1_700_000_000_000}


@in_virtual_time
async def test_a_window_ends_after_its_last_record() -> None:
    """A transaction marker after it, which no reader sees, changes nothing: the next window begins at E."""
    rig = Rig(max_events=4)
    export = await rig.begin()

    export.accept(chunk(0, 5, without=[2]))
    export.accept(chunk(5, 10, without=[5]))
    await settled()

    assert rig.puts == [name(0, 5), name(5, 10)]


@in_virtual_time
async def test_work_of_a_lost_partition_commits_nothing() -> None:
    """The delivery is under way when the partition goes; its completion changes nothing any more."""
    rig = Rig()
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 100))
    await settled()

    rig.kafka.held.clear()
    rig.kafka.delivering.set()
    await settled()

    assert rig.trace == [Planned(0, 100), Put(name(0, 100))]


@in_virtual_time
async def test_a_dropped_partition_does_nothing_more() -> None:
    """No delivery starts, no timer fires and its memory is free."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 3))
    await settled()

    export.drop()
    rig.kafka.delivering.set()
    await passed(2 * FLUSH_SECONDS)

    assert rig.trace == [Planned(0, 2)]
    assert rig.budget.used == 0


# ── when windows close ─────────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_closes_by_count_however_chunks_are_cut() -> None:
    """Ten windows of ten, whether records come one by one or all together."""
    together, single = Rig(max_events=10), Rig(max_events=10)

    export = await together.begin()
    export.accept(chunk(0, 100))
    await settled()
    export = await single.begin()
    for offset in range(100):
        export.accept(chunk(offset, offset + 1))
        await settled()

    assert together.puts == single.puts == [name(start, start + 10) for start in range(0, 100, 10)]
    assert together.sink.contents == single.sink.contents


@in_virtual_time
async def test_closes_by_bytes() -> None:
    """Looked at between chunks: the window is closed by the chunk that reaches the size."""
    rig = Rig(max_bytes=500)
    export = await rig.begin()
    before = closed_by("bytes")

    for start in range(0, 20, 5):
        export.accept(chunk(start, start + 5))
        await settled()

    assert rig.puts == [name(0, 10), name(10, 20)]
    assert closed_by("bytes") == before + 2


@in_virtual_time
async def test_closes_by_the_clock_when_nothing_more_comes() -> None:
    """A quiet topic's last events are not kept waiting for others; counted from the window's first record."""
    rig = Rig()
    export = await rig.begin()
    before = closed_by("time")

    export.accept(chunk(0, 1))
    await passed(FLUSH_SECONDS / 2)
    export.accept(chunk(1, 2))
    await passed(FLUSH_SECONDS / 2 - 1)
    assert rig.trace == []
    await passed(2)

    assert rig.trace == [Planned(0, 2), Put(name(0, 2)), Committed(2)]
    assert closed_by("time") == before + 1


@in_virtual_time
async def test_the_clock_begins_again_with_each_window() -> None:
    """The clock of a window that was closed early does not close the next one."""
    rig = Rig(max_events=2)
    export = await rig.begin()

    export.accept(chunk(0, 2))
    await passed(FLUSH_SECONDS - 1)
    export.accept(chunk(2, 3))
    await passed(FLUSH_SECONDS - 1)
    assert rig.puts == [name(0, 2)]
    await passed(2)

    assert rig.puts == [name(0, 2), name(2, 3)]


@in_virtual_time
async def test_a_window_whose_time_is_up_waits_for_its_turn() -> None:
    """Its clock runs out while two others wait for the sink: it is closed as soon as there is a place."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 5))

    await passed(2 * FLUSH_SECONDS)
    assert rig.trace == [Planned(0, 2)]
    rig.kafka.delivering.set()
    await settled()

    assert rig.puts == [name(0, 2), name(2, 4), name(4, 5)]


@in_virtual_time
@pytest.mark.parametrize("reason", ["revoke", "shutdown"])
async def test_closes_at_the_end(reason: str) -> None:
    """What has been collected is delivered before the partition is given away."""
    rig = Rig()
    export = await rig.begin()
    export.accept(chunk(0, 3))
    before = closed_by(reason)

    await export.finish(reason, deadline=60.0)

    assert rig.trace == [Planned(0, 3), Put(name(0, 3)), Committed(3)]
    assert closed_by(reason) == before + 1
    assert rig.budget.used == 0


@in_virtual_time
async def test_the_end_waits_no_longer_than_its_budget() -> None:
    """The rest is left to the plan and the next owner: what comes back later commits nothing."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 5))
    await settled()

    await export.finish("revoke", deadline=3.0)
    rig.kafka.held.clear()
    rig.kafka.delivering.set()
    await settled()

    assert rig.trace == [Planned(0, 2)]


@in_virtual_time
async def test_takes_no_chunk_while_it_ends() -> None:
    """A chunk that was under way when the partition is given away belongs to the next owner."""
    rig = Rig(max_events=2)
    rig.sink.failures.append(SinkUnavailable("down"))
    export = await rig.begin()
    export.accept(chunk(0, 2))
    await settled()

    end = asyncio.create_task(export.finish("revoke", deadline=10.0))
    await settled()
    export.accept(chunk(2, 4))
    await end

    assert rig.trace[-1] == Committed(2)


# ── back-pressure ──────────────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_one_window_is_planned_one_waits_and_one_fills() -> None:
    """With those the partition is paused, and resumed when the first one is through."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()

    export.accept(chunk(0, 6))
    await settled()
    assert rig.trace == [Planned(0, 2)]
    export.accept(chunk(6, 7))
    await settled()
    assert rig.trace == [Planned(0, 2), Paused()]
    rig.kafka.delivering.set()
    await passed(FLUSH_SECONDS + 1)

    resumed = rig.trace.index(Resumed())
    assert rig.trace[resumed - 1] in (Committed(2, then=Planned(2, 4)), Put(name(2, 4)))
    del rig.trace[resumed]
    assert rig.trace == [
        Planned(0, 2),
        Paused(),
        Put(name(0, 2)),
        Committed(2, then=Planned(2, 4)),
        Put(name(2, 4)),
        Committed(4, then=Planned(4, 6)),
        Put(name(4, 6)),
        Committed(6),
        Planned(6, 7),
        Put(name(6, 7)),
        Committed(7),
    ]


@in_virtual_time
async def test_a_full_budget_closes_a_window_early() -> None:
    """Memory that can be delivered is delivered."""
    rig = Rig(memory=MIB, max_events=1_000_000)
    export = await rig.begin(high=100_000)
    before = closed_by("memory")

    for start in range(0, 30_000, 1_000):
        export.accept(chunk(start, start + 1_000))
        await settled()

    assert closed_by("memory") > before
    await passed(FLUSH_SECONDS + 1)
    assert [step.offset for step in rig.trace if isinstance(step, Committed)][-1] == 30_000


@in_virtual_time
async def test_a_full_budget_pauses_what_cannot_be_delivered() -> None:
    """While the sink takes nothing, memory stays near the budget, and the chunk that waits is not lost."""
    rig = Rig(memory=MIB, max_events=1_000_000)
    rig.kafka.delivering.clear()
    export = await rig.begin(high=100_000)
    start = 0
    while Paused() not in rig.trace:
        export.accept(chunk(start, start + 1_000))
        await settled()
        start += 1_000

    assert rig.budget.used < 1.5 * MIB
    rig.kafka.delivering.set()
    await passed(FLUSH_SECONDS + 1)

    assert Resumed() in rig.trace
    assert [step.offset for step in rig.trace if isinstance(step, Committed)][-1] == start


@in_virtual_time
async def test_a_partition_that_is_stuck_does_not_starve_others() -> None:
    """It holds the whole budget and its sink takes nothing: another one goes on, window by window."""
    rig = Rig(memory=MIB, max_events=1_000_000)
    other = Partition("evaluations", 4)
    rig.kafka.stuck.add(PARTITION)
    stuck, moving = await rig.begin(high=100_000), await rig.begin(high=100_000, partition=other)
    start = 0
    while not rig.budget.full:
        stuck.accept(chunk(start, start + 1_000))
        await settled()
        start += 1_000

    for start in range(0, 30_000, 1_000):
        moving.accept(replace(chunk(start, start + 1_000), partition=other))
    await passed(100 * FLUSH_SECONDS)

    delivered = [held for held in rig.sink.objects if held.partition == other]
    assert sum(held.end - held.start for held in delivered) == 30_000
    assert rig.budget.used < 2 * MIB


@in_virtual_time
async def test_chunks_that_wait_are_given_back_and_fetched_again() -> None:
    """When others need the memory. Chunks that were under way after them are passed over, and come again."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    account = Account(MemoryShare())
    export = await rig.begin()
    export.accept(chunk(0, 6))
    export.accept(replace(chunk(6, 8), weight=Weight(account, 100)))
    await settled()
    assert account.settle() == 100

    export.give_back()
    assert account.settle() == 0
    rig.kafka.fetched = 10
    export.accept(chunk(8, 10))
    rig.kafka.delivering.set()
    await passed(RETRY_SECONDS)
    assert Resumed(6) in rig.trace
    export.accept(chunk(6, 10))
    await passed(FLUSH_SECONDS + 1)

    assert rig.puts == [name(start, start + 2) for start in range(0, 10, 2)]
    assert Restarted() not in rig.trace


@in_virtual_time
async def test_a_hole_behind_what_was_given_back_is_seen() -> None:
    """A chunk that was not fetched by then does not join onto anything: nothing is stepped over."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 7))
    await settled()
    export.give_back()
    rig.kafka.fetched = 10
    rig.kafka.delivering.set()
    await passed(RETRY_SECONDS)

    export.accept(chunk(10, 11))
    await settled()

    assert Restarted() in rig.trace


@in_virtual_time
async def test_nothing_is_given_back_that_is_nowhere_else() -> None:
    """Retention has deleted what waits here."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 7))
    await settled()
    export.overtaken(Hole("deleted", 7, None))

    export.give_back()
    rig.kafka.delivering.set()
    await settled()

    assert rig.puts[-1] == name(6, 7)


@in_virtual_time
async def test_large_records_are_taken_few_at_a_time() -> None:
    """Validation and encoding make copies, so the size is looked at between. What is taken weighs no more."""
    rig = Rig(max_events=10_000)
    rig.kafka.delivering.clear()
    account = Account(MemoryShare())
    taken = []
    add = rig.sink.begin(PARTITION, 0).__class__.add

    def counted(encoder: Any, values: Any, records: Any) -> Any:
        taken.append(len(values))
        return add(encoder, values, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flagstream.formats.jsonl.JsonLinesEncoder.add", counted)
        export = await rig.begin()
        export.accept(replace(chunk(0, 100), weight=Weight(account, 5 * MIB)))
        await settled()

    assert sum(taken) == 100
    assert max(taken) == 20
    assert account.settle() == 0


# ── chunks ─────────────────────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
@pytest.mark.parametrize("start", [11, 9, 0])
async def test_a_chunk_that_does_not_join_starts_the_partition_over(start: int) -> None:
    """No offset is ever stepped over, and none is taken twice."""
    rig = Rig()
    export = await rig.begin()
    export.accept(chunk(0, 10))

    export.accept(chunk(start, 100))
    await settled()

    assert rig.trace == [Restarted()]


@in_virtual_time
async def test_a_chunk_of_another_epoch_is_ignored() -> None:
    """It was fetched under an earlier tenure; its records come again."""
    rig = Rig(max_events=10)
    export = await rig.begin()

    export.accept(chunk(0, 10, epoch=EPOCH - 1))
    export.accept(chunk(5, 10, epoch=EPOCH + 1))
    export.accept(chunk(0, 10))
    await settled()

    assert rig.puts == [name(0, 10)]
    assert rig.trace[-1] == Committed(10)


# ── taking a plan over ─────────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_a_plan_is_delivered_as_it_stands() -> None:
    """Exactly [S, E) comes first, whatever today's limits say; from E on they hold again."""
    rig = Rig(max_events=3, max_bytes=10, memory=1)
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    for start in range(10, 23, 2):
        export.accept(chunk(start, start + 2))
        await settled()

    steps = [step for step in rig.trace if step not in (Paused(), Resumed())]
    assert steps[:3] == [Put(name(10, 17)), Committed(17), Planned(17, 18)]


@in_virtual_time
async def test_a_plan_is_not_closed_by_the_clock() -> None:
    """Its records come as late as they come."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 15))
    await passed(10 * FLUSH_SECONDS)
    assert rig.trace == []
    export.accept(chunk(15, 17))
    await settled()

    assert rig.trace == [Put(name(10, 17)), Committed(17)]


@in_virtual_time
async def test_a_plan_is_not_closed_at_the_end() -> None:
    """Half of it has been read when the partition moves on: the next owner finds the plan unchanged."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 15))
    await export.finish("revoke", deadline=3.0)

    assert rig.trace == []


@in_virtual_time
async def test_a_plan_that_was_delivered_is_found_there() -> None:
    """The last owner died between the delivery and the commit."""
    rig = Rig()
    rig.hold(10, 17)
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 17))
    await settled()

    assert rig.trace == [Found(name(10, 17)), Committed(17)]


@in_virtual_time
async def test_a_plan_keeps_the_name_that_it_was_made_with() -> None:
    """Before it everything had been rejected: the window is read from 10 on and named from 4 on."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17), range_start=4), 10)

    export.accept(chunk(10, 17))
    await settled()

    assert rig.trace == [Put(name(4, 17)), Committed(17)]


@in_virtual_time
async def test_a_plan_of_another_configuration_stops() -> None:
    """Its objects may exist under other names: nothing is written, and the message names the ways out."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17, config="former")), 10)

    export.accept(chunk(10, 17))
    await settled()

    assert rig.trace == [Paused()]
    stopped = str(export.stopped)
    assert "former" in stopped
    assert "old configuration" in stopped
    assert "reset" in stopped


@in_virtual_time
async def test_a_plan_beyond_the_end_of_the_topic_stops() -> None:
    """The topic was truncated or recreated: its records will never come."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17)), 10, high=12)

    assert rig.trace == [Paused()]
    assert "12" in str(export.stopped)


@in_virtual_time
@pytest.mark.parametrize("difference", ["count", "content"])
async def test_a_plan_whose_records_changed_stops(difference: str) -> None:
    """Another count or another content than planned is another window: it must not get the planned name."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(
        chunk(10, 17, without=[12]) if difference == "count" else chunk(10, 17, values={12: event(99)})
    )
    await settled()

    assert rig.trace == [Paused()]
    assert "7 records were planned" in str(export.stopped)


@in_virtual_time
async def test_a_plan_whose_last_record_is_gone_stops() -> None:
    """E is the last record's offset + 1; if that record does not come, the range is not what it was."""
    rig = Rig()
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 20, without=[15, 16]))
    await settled()

    assert rig.trace == [Paused()]
    assert "10" in str(export.stopped)


@in_virtual_time
async def test_a_plan_with_records_missing_goes_on_if_told_so() -> None:
    """What is left of the range is stored under its planned name, so that the tiling holds."""
    rig = Rig(on_missing_records="continue")
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 17, without=[12]))
    await settled()

    assert rig.trace == [Put(name(10, 17)), Committed(17)]


@in_virtual_time
async def test_a_plan_without_its_last_record_goes_on_if_told_so() -> None:
    """The planned range is delivered with what is left of it."""
    rig = Rig(on_missing_records="continue", max_events=3)
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 20, without=[15, 16]))
    await settled()

    assert rig.trace[:2] == [Put(name(10, 17)), Committed(17, then=Planned(17, 20))]


@in_virtual_time
async def test_a_plan_of_which_all_is_gone_is_given_up_if_told_so() -> None:
    """Reading goes on after it; the next range starts where the plan does, so ranges still tile."""
    rig = Rig(on_missing_records="continue", max_events=5)
    export = await rig.begin(offset=20, committed=10, metadata=Metadata(plan(10, 17)).text(), low=20)

    export.accept(chunk(20, 25))
    await settled()

    assert rig.puts == [name(10, 25)]
    assert rig.trace[-1] == Committed(25)


@in_virtual_time
async def test_a_plan_that_was_delivered_before_its_records_went_counts_as_delivered() -> None:
    """Its object is whole: there is nothing to deliver, and the next window is named from its end."""
    rig = Rig(on_missing_records="continue", max_events=5)
    rig.hold(10, 17)
    export = await rig.begin(offset=20, committed=10, metadata=Metadata(plan(10, 17)).text(), low=20)

    export.accept(chunk(20, 25))
    await settled()

    assert rig.puts == [name(17, 25)]


@in_virtual_time
async def test_a_plan_that_was_delivered_before_half_its_records_went_counts_as_delivered() -> None:
    """As above: what is stored under the planned name is all of it, not a conflict with what is left."""
    rig = Rig(on_missing_records="continue", max_events=5)
    rig.hold(10, 17)
    export = await rig.begin(offset=14, committed=10, metadata=Metadata(plan(10, 17)).text(), low=14)

    export.accept(chunk(14, 22))
    await settled()

    assert export.stopped is None
    assert rig.puts == [name(17, 22)]


@in_virtual_time
async def test_metadata_of_a_later_version_stops() -> None:
    """A newer worker's plan may say what this one does not understand."""
    rig = Rig()
    export = await rig.begin(committed=10, metadata='{"v":2,"end":17}')

    assert rig.trace == [Paused()]
    assert "version 2" in str(export.stopped)


@in_virtual_time
async def test_an_offset_that_an_operator_set_is_where_it_goes_on() -> None:
    """Foreign metadata is not a plan."""
    rig = Rig(max_events=5)
    export = await rig.begin(committed=10, metadata="set by hand")

    export.accept(chunk(10, 15))
    await settled()

    assert rig.trace == [Planned(10, 15), Put(name(10, 15)), Committed(15)]


# ── rejects ────────────────────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_rejects_are_committed_with_their_window() -> None:
    """Dead letters and the window's end become visible together, after the object."""
    rig = Rig(max_events=5)
    export = await rig.begin()

    export.accept(chunk(0, 5, values={1: None, 3: b"[1]"}))
    await settled()

    assert rig.trace == [
        Planned(0, 5),
        Put(name(0, 5)),
        Transacted(("tombstone", "foreign"), Committed(5)),
    ]
    assert rig.sink.contents[OffsetRange(PARTITION, 0, 5)] == b"\n".join([event(0), event(2), event(4), b""])
    assert rig.sink.objects[OffsetRange(PARTITION, 0, 5)].records == 3


@in_virtual_time
async def test_a_range_of_rejects_makes_no_object_and_no_hole_in_the_names() -> None:
    """Its end is committed with where names go on from, and the next window is named from there."""
    rig = Rig(max_events=2)
    export = await rig.begin()

    export.accept(chunk(0, 2, values={0: None, 1: None}))
    await settled()
    export.accept(chunk(2, 4))
    await settled()

    assert rig.trace == [
        Transacted(("tombstone", "tombstone"), Committed(2, range_start=0)),
        Planned(0, 4),
        Put(name(0, 4)),
        Committed(4),
    ]
    assert json.loads(rig.kafka.texts[0]) == {"v": 1, "from": 0}
    assert json.loads(rig.kafka.texts[1])["from"] == 0


@in_virtual_time
async def test_ranges_of_rejects_add_up() -> None:
    """However many there are in a row, names go on from the first; so they do for whoever takes over."""
    rig = Rig(max_events=2)
    export = await rig.begin()
    for start in (0, 2):
        export.accept(chunk(start, start + 2, values={start: None, start + 1: None}))
        await settled()
    export.drop()

    export = await rig.begin(committed=4, metadata=rig.kafka.texts[-1])
    export.accept(chunk(4, 6, values={4: b"no", 5: b"no"}))
    await settled()
    export.accept(chunk(6, 8))
    await settled()

    assert [json.loads(text).get("from") for text in rig.kafka.texts] == [0, 0, 0, 0, None]
    assert rig.puts == [name(0, 8)]


@in_virtual_time
async def test_a_window_with_rejects_is_not_planned_ahead() -> None:
    """Windows that leave something to a transaction come in their turn, and nothing of them is lost."""
    rig = Rig(max_events=2)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 6, values={2: None, 4: None, 5: None}))
    await settled()
    rig.kafka.delivering.set()
    await settled()

    assert rig.trace == [
        Planned(0, 2),
        Put(name(0, 2)),
        Committed(2),
        Planned(2, 4),
        Put(name(2, 4)),
        Transacted(("tombstone",), Committed(4)),
        Transacted(("tombstone", "tombstone"), Committed(6, range_start=4)),
    ]


@in_virtual_time
async def test_a_plan_with_rejects_is_repeated_with_them() -> None:
    """Who takes over rejects the same records again; the last owner's were not committed."""
    rig = Rig(max_events=5)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 5, values={1: None}))
    await settled()
    export.drop()
    rig.kafka.delivering.set()

    export = await rig.begin(committed=0, metadata=rig.kafka.texts[-1])
    export.accept(chunk(0, 5, values={1: None}))
    await settled()

    assert rig.trace == [Planned(0, 5), Put(name(0, 5)), Transacted(("tombstone",), Committed(5))]


# ── what the sink holds already ────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_an_object_at_our_offset_is_adopted_as_the_plan() -> None:
    """The offset was set back: the cut of the object that is there holds, whatever the limits say."""
    rig = Rig(max_events=3)
    rig.hold(5, 12)
    export = await rig.begin(committed=5)

    export.accept(chunk(5, 15))
    await settled()

    assert rig.trace[:3] == [Planned(5, 12), Found(name(5, 12)), Committed(12, then=Planned(12, 15))]
    assert rig.puts == [name(12, 15)]


@in_virtual_time
async def test_a_chain_of_objects_is_adopted_in_order() -> None:
    """Objects that join onto each other are all found again; new windows follow after them."""
    rig = Rig(max_events=3)
    for start, end in ((5, 7), (7, 12), (12, 13)):
        rig.hold(start, end)
    export = await rig.begin(committed=5)

    export.accept(chunk(5, 16))
    await settled()

    found = [step.name for step in rig.trace if isinstance(step, Found)]
    assert found == [name(5, 7), name(7, 12), name(12, 13)]
    assert rig.puts == [name(13, 16)]


@in_virtual_time
async def test_adopted_objects_that_hold_something_else_stop() -> None:
    """A name alone proves nothing: count and digest decide."""
    rig = Rig()
    rig.hold(5, 12)
    export = await rig.begin(committed=5)

    export.accept(chunk(5, 12, values={6: event(99)}))
    await settled()

    assert rig.trace == [Planned(5, 12), Paused()]
    assert export.stopped


@in_virtual_time
async def test_objects_behind_a_plan_are_adopted_after_it() -> None:
    """The offset was set back by somebody who kept its metadata: plan and objects are one chain."""
    rig = Rig(max_events=3)
    rig.hold(10, 17)
    rig.hold(17, 21)
    export = await rig.resume_from(Metadata(plan(10, 17)), 10)

    export.accept(chunk(10, 24))
    await settled()

    assert [step.name for step in rig.trace if isinstance(step, Found)] == [name(10, 17), name(17, 21)]
    assert rig.puts == [name(21, 24)]


@in_virtual_time
async def test_an_object_of_a_refused_window_is_reckoned_with() -> None:
    """The sink refused a window that it had stored all the same: the next one is named from its end."""
    rig = Rig(max_events=4)
    rig.hold(10, 13)
    export = await rig.resume_from(Metadata(range_start=10), 13)

    export.accept(chunk(13, 17))
    await settled()

    assert rig.puts == [name(13, 17)]


@in_virtual_time
async def test_an_object_of_a_refused_window_stops_no_plan_behind_it() -> None:
    """The plan is named from there on, and overlaps nothing that is still to come."""
    rig = Rig()
    rig.hold(100, 200)

    export = await rig.resume_from(Metadata(plan(200, 300), range_start=100), 200)
    export.accept(chunk(200, 300))
    await settled()

    assert rig.trace == [Put(name(100, 300)), Committed(300)]


@in_virtual_time
@pytest.mark.parametrize(
    ("held", "gap"),
    [([(3, 9)], False), ([(6, 9)], True), ([(5, 7), (8, 9)], True), ([(5, 9), (7, 12)], False)],
)
async def test_any_other_overlap_stops(held: list[tuple[int, int]], gap: bool) -> None:
    """Objects that do not join onto our offset belong to another story: nothing is written beside them.

    Where some are missing in between they may have been deleted, and the ways out say so.
    """
    rig = Rig()
    for start, end in held:
        rig.hold(start, end)
    export = await rig.begin(committed=5)

    export.accept(chunk(5, 105))
    await settled()

    assert rig.trace == [Paused()]
    assert "overlaps" in str(export.stopped)
    assert ("deleted" in str(export.stopped)) == gap


@in_virtual_time
async def test_objects_before_our_offset_are_no_concern() -> None:
    """They are what was exported before."""
    rig = Rig(max_events=5)
    rig.hold(0, 5)
    export = await rig.begin(committed=5)

    export.accept(chunk(5, 10))
    await settled()

    assert rig.puts == [name(5, 10)]


@in_virtual_time
async def test_a_sink_that_cannot_know_is_taken_at_its_word() -> None:
    """A log or a webhook has nothing to adopt."""
    rig = Rig(max_events=5)
    rig.sink.knows = False
    export = await rig.begin()

    export.accept(chunk(0, 5))
    await settled()

    assert rig.trace == [Planned(0, 5), Put(name(0, 5)), Committed(5)]


@in_virtual_time
async def test_lost_offsets_stop() -> None:
    """Objects, but no offset: a new start would store everything twice. The text has the ways out."""
    rig = Rig()
    rig.hold(0, 7)
    rig.hold(7, 9)
    export = await rig.begin(committed=None)

    export.accept(chunk(0, 100))
    await settled()

    assert rig.trace == [Paused()]
    assert "from 0 to 9" in str(export.stopped)
    assert "reset the group's offset of this partition to 7," in str(export.stopped)
    assert "on_lost_offsets" in str(export.stopped)


@in_virtual_time
async def test_lost_offsets_go_on_with_the_last_window_if_told_so() -> None:
    """All before it are whole; of the last one only an index may be there, so it is delivered once more."""
    rig = Rig(max_events=5, on_lost_offsets="continue")
    rig.hold(0, 7)
    rig.hold(7, 9)
    await rig.begin(committed=None)
    assert rig.trace == [Restarted(to=7)]

    rig.kafka.held.add(EPOCH)
    export = await rig.begin(offset=7, committed=None)
    export.accept(chunk(7, 14))
    await settled()

    again = [Found(name(7, 9)), Committed(9, then=Planned(9, 14)), Put(name(9, 14))]
    assert rig.trace == [Restarted(to=7), *again, Committed(14)]


@in_virtual_time
@pytest.mark.parametrize("early", [False, True])
async def test_lost_offsets_are_seen_from_a_later_start(early: bool) -> None:
    """A group that starts at "latest" would begin after all windows and pass over what came since the last
    one, also where it committed its start before the sink could be asked.
    """
    rig = Rig()
    rig.kafka.group_start = GroupStart(1_700_000_000_000, 4)
    rig.hold(0, 7)
    text = Metadata(range_start=50, group_start=rig.kafka.group_start).text() if early else ""
    export = await rig.begin(offset=50, committed=50 if early else None, metadata=text, high=50)

    assert rig.trace == [Paused()]
    assert "reset the group's offset of this partition to 0," in str(export.stopped)


@in_virtual_time
async def test_lost_offsets_go_on_with_the_last_window_from_a_later_start() -> None:
    """Nothing between the last window and the start is passed over."""
    rig = Rig(on_lost_offsets="continue")
    rig.kafka.group_start = GroupStart(1_700_000_000_000, 4)
    rig.hold(0, 7)
    rig.hold(7, 9)
    early = Metadata(range_start=50, group_start=rig.kafka.group_start).text()
    await rig.begin(offset=50, committed=50, metadata=early, high=50)
    assert rig.trace == [Restarted(to=7)]

    rig.trace.clear()
    rig.kafka.held.add(EPOCH)
    export = await rig.begin(offset=7, committed=50, metadata=early, high=50)
    export.accept(chunk(7, 12))
    await settled()

    assert rig.trace == [Committed(7), Found(name(7, 9)), Committed(9)]


@in_virtual_time
async def test_a_start_that_was_committed_early_is_kept() -> None:
    """Where the sink turns out to hold nothing; from then on it counts as any other offset."""
    rig = Rig()
    rig.kafka.group_start = GroupStart(1_700_000_000_000, 4)
    early = Metadata(range_start=50, group_start=rig.kafka.group_start)
    assert early.unasked(50)
    await rig.begin(committed=50, metadata=early.text(), high=50)

    assert rig.trace == [Committed(50)]
    assert not Metadata.parse(rig.kafka.texts[-1]).unasked(50)


@in_virtual_time
async def test_lost_offsets_of_another_topic_stop() -> None:
    """A topic that was recreated under the name holds other records where the last window was."""
    rig = Rig(on_lost_offsets="continue")
    rig.hold(0, 7)
    export = await rig.begin(committed=None)

    export.accept(chunk(0, 100, values={6: event(1006)}))
    await settled()

    assert [step for step in rig.trace if step != Paused()] == []
    assert "holds something else" in str(export.stopped)
    assert "recreated" in str(export.stopped)


@in_virtual_time
async def test_lost_offsets_stop_where_the_last_window_cannot_be_looked_at() -> None:
    """Its records are gone, and nothing shows whether all of it is stored; a person can look."""
    rig = Rig(on_lost_offsets="continue")
    rig.hold(0, 7)
    rig.hold(7, 9)
    export = await rig.begin(offset=8, low=8, committed=None)

    assert rig.trace == [Paused()]
    assert "reset the group's offset of this partition to 9" in str(export.stopped)


@in_virtual_time
async def test_lost_offsets_with_objects_beyond_the_topic_stop_in_any_case() -> None:
    """The topic was recreated: going on after the objects would pass over all of its records."""
    rig = Rig(on_lost_offsets="continue")
    rig.hold(0, 2_000)
    export = await rig.begin(committed=None, high=1_000)

    assert rig.trace == [Paused()]
    assert export.stopped


@in_virtual_time
async def test_a_topic_that_was_recreated_stops() -> None:
    """Its offsets mean other records: nothing under the old names fits."""
    rig = Rig(topic_id="new")
    export = await rig.resume_from(Metadata(topic_id="old"), 5)

    export.accept(chunk(5, 105))
    await settled()

    assert rig.trace == [Paused()]
    assert "recreated" in str(export.stopped)


@in_virtual_time
@pytest.mark.parametrize("holes", [range(0), range(4, 8)], ids=["events", "nothing to export"])
async def test_a_topic_that_is_recreated_meanwhile_stops(holes: range) -> None:
    """No chunk shows it: whatever was fetched before its id was asked for again may be of the new one."""
    rig = Rig(max_events=4, topic_id="old")
    export = await rig.begin()
    export.accept(chunk(0, 4))
    await settled()
    before = list(rig.trace)

    rig.kafka.topic = "new"
    export.accept(chunk(4, 8, values=dict.fromkeys(holes, b"{}")))
    await settled()

    assert [Planned(0, 4), Put(name(0, 4)), Committed(4)] == before
    assert [*before, Paused()] == rig.trace
    assert "recreated (its topic id is new" in str(export.stopped)


@in_virtual_time
async def test_a_broker_that_stops_telling_ids_stops_nothing() -> None:
    """As while the topic is deleted: what was fetched before is still of it."""
    rig = Rig(max_events=4, topic_id="old")
    export = await rig.begin()

    rig.kafka.topic = ""
    export.accept(chunk(0, 4))
    await settled()

    assert rig.trace == [Planned(0, 4), Put(name(0, 4)), Committed(4)]


# ── what the sink says ─────────────────────────────────────────────────────────────────────────────────────


@in_virtual_time
async def test_a_conflict_stops_the_partition() -> None:
    """Something else stands under our name: it is not tried again, and nothing after it is delivered."""
    rig = Rig(max_events=2)
    rig.sink.failures.append(ObjectConflict("it holds something else"))
    export = await rig.begin()

    export.accept(chunk(0, 10))
    await passed(10 * FLUSH_SECONDS)

    assert [step for step in rig.trace if step != Paused()] == [
        Planned(0, 2),
        Failed(name(0, 2), "ObjectConflict"),
    ]
    assert export.stopped == "it holds something else"


@in_virtual_time
async def test_a_refused_window_begins_again_as_dead_letters() -> None:
    """Its records are no longer in memory: the partition starts over, with the plan and the reason."""
    rig = Rig(on_refused="dead_letter")
    rig.kafka.tells_refusals = True
    rig.sink.failures.append(SinkRefused("no permission"))
    export = await rig.begin()

    export.accept(chunk(0, 100))
    await settled()

    failed = Failed(name(0, 100), "SinkRefused")
    assert rig.trace == [Planned(0, 100), failed, Restarted(refused="no permission")]


@in_virtual_time
async def test_a_refused_plan_becomes_dead_letters_and_the_tiling_goes_on() -> None:
    """The window's records and its end are committed as one; the next window is named from its start."""
    rig = Rig(on_refused="dead_letter", max_events=4)
    export = await rig.begin(committed=10, metadata=Metadata(plan(10, 13)).text(), refused=REFUSED)

    export.accept(chunk(10, 17))
    await settled()

    assert rig.trace == [
        Transacted(("refused",) * 3, Committed(13, range_start=10, then=Planned(10, 17))),
        Put(name(10, 17)),
        Committed(17),
    ]


@in_virtual_time
async def test_what_was_accepted_of_a_refused_window_is_no_dead_letter() -> None:
    """Only the rest of it is, and the next window is named from where the sink left off."""
    rig = Rig(on_refused="dead_letter", max_events=4)
    rig.kafka.tells_refusals = True
    rig.sink.failures.append(SinkRefused("no more", accepted=12))
    export = await rig.begin(committed=10)
    export.accept(chunk(10, 14))
    await settled()
    assert rig.trace[-1] == Restarted(refused="no more", accepted=12)

    rig.kafka.held.add(EPOCH)
    text = Metadata(plan(10, 14)).text()
    export = await rig.begin(committed=10, metadata=text, refused=SinkRefused("no more", accepted=12))
    export.accept(chunk(10, 18))
    await settled()

    assert rig.trace[-3:] == [
        Transacted(("refused", "refused"), Committed(14, range_start=12, then=Planned(12, 18))),
        Put(name(12, 18)),
        Committed(18),
    ]


@in_virtual_time
async def test_only_the_refused_window_becomes_dead_letters() -> None:
    """Starting over later, for any other reason, gives the sink the next window as usual."""
    rig = Rig(on_refused="dead_letter", max_events=4)
    export = await rig.begin(committed=10, metadata=Metadata(plan(10, 13)).text(), refused=REFUSED)
    export.accept(chunk(10, 13))
    await settled()

    export.accept(chunk(50, 60))
    await settled()

    assert rig.trace[-1] == Restarted(refused=None)


@in_virtual_time
async def test_what_was_refused_before_makes_no_dead_letters_of_the_next_window() -> None:
    """The partition was begun again while the refused window was being committed as dead letters, and the
    plan of the next one travelled along.
    """
    rig = Rig()
    position = Position(EPOCH, 13, 13, Metadata(plan(13, 16)).text(), 0, 1_000)
    refused = RefusedWindow(RangesRefused("no more", [(10, 13, "no more")], until=13), 10)
    export = begin(rig.to, Tenure(PARTITION, position, rig.kafka), rig.kafka, refused)
    await settled()

    export.accept(chunk(13, 16))
    await settled()

    assert rig.trace == [Put(name(13, 16)), Committed(16)]


@in_virtual_time
async def test_a_refused_window_with_rejects_keeps_their_reasons() -> None:
    """Each record of the range is a dead letter once: rejected ones for what they are, others as refused."""
    rig = Rig(on_refused="dead_letter", max_events=4)
    content = ContentDigest()
    content.update([event(10), event(12)])
    text = Metadata(Plan(13, 2, content.hexdigest(), "shape")).text()
    export = await rig.begin(committed=10, metadata=text, refused=REFUSED)

    export.accept(chunk(10, 13, values={11: None}))
    await settled()

    assert rig.trace == [
        Transacted(("refused", "refused", "tombstone"), Committed(13, range_start=10)),
    ]


@in_virtual_time
async def test_windows_before_a_record_that_stops_the_partition_are_delivered() -> None:
    """The one that is under way and the one that waits; what filled is not, and takes no memory."""
    rig = Rig(max_events=4)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 10))
    await settled()

    export.accept(chunk(10, 13, values={11: b"\x0efeature"}))
    export.accept(chunk(13, 20))
    await settled()
    assert "offset 11" in str(export.stopped)
    rig.kafka.delivering.set()
    await settled()

    assert rig.puts == [name(0, 4), name(4, 8)]
    assert rig.trace[-1] == Committed(8)
    assert rig.budget.used == 0


class Picky(RecordingSink):
    """Its encoders reject values with "huge" in them."""

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        class Encoder(JsonLinesEncoder):
            def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
                huge = [index for index, value in enumerate(values) if b"huge" in value]
                for index, (value, record) in enumerate(zip(values, records, strict=True)):
                    if index not in huge:
                        super().add([value], [record])
                return [Reject(index, "too_large", "it is huge") for index in huge]

        return Encoder(Compression("none", 1).output())


@in_virtual_time
async def test_what_the_sink_cannot_hold_of_a_refused_window_keeps_its_reason() -> None:
    """Also what lies before the offset up to which the sink has accepted the window: it was not in what it
    accepted. What lies after it is a dead letter once.
    """
    rig = Rig(on_refused="dead_letter", max_events=8)
    rig.give(Picky(rig.trace))
    rig.kafka.tells_refusals = True
    refusal = SinkRefused("no more", accepted=14)
    rig.sink.failures.append(refusal)
    huge = b'{"kind":"feature","key":"huge"}'
    values = {10: None, 12: huge, 16: huge}
    export = await rig.begin(committed=10)
    export.accept(chunk(10, 18, values=values))
    await settled()
    assert rig.trace[-1:] == [Restarted(refused="no more", accepted=14)]

    export.drop()
    rig.kafka.held.add(EPOCH)
    export = await rig.begin(committed=10, metadata=rig.kafka.texts[-1], refused=refusal)
    export.accept(chunk(10, 13, values={10: None, 12: huge}))
    export.accept(chunk(13, 18, values={16: huge}))
    await settled()

    assert rig.trace[-1] == Transacted(
        ("refused",) * 3 + ("tombstone", "too_large", "too_large"), Committed(18, range_start=14)
    )
    letters = [(letter.reason, dict(letter.headers)["flagstream-offset"]) for letter in rig.kafka.letters]
    assert letters == [("tombstone", b"10"), ("too_large", b"12"), ("too_large", b"16")]
    assert rig.budget.used == 0


@in_virtual_time
async def test_a_conflict_leaves_memory_to_others() -> None:
    """A partition that waits for a person holds nothing that others could use."""
    rig = Rig(max_events=2)
    rig.sink.failures.append(ObjectConflict("it holds something else"))
    export = await rig.begin()

    export.accept(chunk(0, 5))
    await settled()

    assert export.stopped
    assert rig.budget.used == 0


@in_virtual_time
async def test_an_error_of_our_own_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not swallowed with the task that it happened in."""
    rig = Rig()
    monkeypatch.setattr(RecordingKafka, "commit", None)
    export = await rig.begin()

    export.accept(chunk(0, 100))
    await settled()

    assert [type(step) for step in rig.trace] == [Broke]


@in_virtual_time
async def test_an_encoder_that_fails_ends_the_process_before_anything_is_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It cannot be asked again, and nothing was promised: the next start cuts a new window."""
    rig = Rig()
    monkeypatch.setattr(JsonLinesEncoder, "finish", None)
    export = await rig.begin()

    export.accept(chunk(0, 100))
    await settled()

    assert [type(step) for step in rig.trace] == [Broke]


# ── what nobody foresaw ────────────────────────────────────────────────────────────────────────────────────


class Tripping(RecordingSink):
    """Its encoders raise at a value with "trip" in it, after they have taken those before it."""

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        class Encoder(JsonLinesEncoder):
            def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
                for value, record in zip(values, records, strict=True):
                    if b"trip" in value:
                        raise SystemError("nobody foresaw this")
                    super().add([value], [record])
                return ()

        return Encoder(Compression("none", 1).output())


def tripping(**settings: Any) -> Rig:
    rig = Rig(**settings)
    rig.give(Tripping(rig.trace))
    return rig


TRIP = b'{"kind":"trip"}'
BROKE = Broke("SystemError('nobody foresaw this')")


@in_virtual_time
async def test_what_raises_while_a_window_fills_ends_the_process_and_commits_nothing() -> None:
    """Half of the chunk is in the window and half is not: none of it may be planned, neither by a chunk that
    joins onto it, nor by the clock, nor by the shutdown that follows.
    """
    rig = tripping()
    export = await rig.begin()

    export.accept(chunk(0, 10))
    export.accept(chunk(10, 20, values={15: TRIP}))
    export.accept(chunk(20, 30))
    await passed(2 * FLUSH_SECONDS)
    await export.finish("shutdown", asyncio.get_running_loop().time() + 10)

    assert rig.trace == [BROKE]
    assert rig.budget.used == 0


@in_virtual_time
async def test_chunks_that_waited_behind_what_raised_are_not_taken_in_its_place() -> None:
    """Taken up when a window before them is delivered: the same, though the agent is not there to see it."""
    rig = tripping(max_events=5)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    for start in (0, 5, 10):
        export.accept(chunk(start, start + 5))
    export.accept(chunk(15, 20, values={16: TRIP}))
    export.accept(chunk(20, 25))
    await settled()

    rig.kafka.delivering.set()
    await settled()
    await export.finish("shutdown", asyncio.get_running_loop().time() + 10)

    assert BROKE in rig.trace
    assert [step for step in rig.trace if isinstance(step, Put | Committed)] == [
        Put(name(0, 5)),
        Committed(5, then=Planned(5, 10)),
    ]


@in_virtual_time
async def test_what_raises_in_one_partition_is_not_taken_for_anothers() -> None:
    """Memory that one gives back lets another go on: what that trips over does not keep the first from what
    it was about to do.
    """
    rig = tripping(memory=2 * WINDOW_OVERHEAD)
    rig.kafka.delivering.clear()
    first = await rig.begin()
    first.accept(chunk(0, 20))
    other = await rig.begin(partition=Partition("evaluations", 4))
    other.accept(chunk(0, 10))
    other.accept(chunk(10, 20, values={15: TRIP}))
    await settled()
    assert BROKE not in rig.trace

    first.drop()
    await settled()

    assert rig.trace[-1] == BROKE
    assert rig.budget.used == 0


@in_virtual_time
@pytest.mark.parametrize("call", ["timer", "memory", "end"])
async def test_what_raises_while_a_window_is_closed_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """By the clock, where the event loop would only log it, for memory, where it would hit another partition,
    and at the end, where it would keep others from being finished.
    """
    rig = Rig()
    export = await rig.begin()
    export.accept(chunk(0, 10))
    monkeypatch.setattr(ContentDigest, "hexdigest", None)

    if call == "timer":
        await passed(FLUSH_SECONDS + 1)
    elif call == "memory":
        export.close_for_memory()
    await export.finish("shutdown", asyncio.get_running_loop().time() + 10)

    assert [type(step) for step in rig.trace] == [Broke]
    assert rig.budget.used == 0


@in_virtual_time
async def test_a_window_takes_no_chunk_but_its_next() -> None:
    """Whatever became of the one between them: the partition starts over."""
    rig = Rig()
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 10))
    await settled()
    export._filling.inbox._chunks.append(chunk(20, 30))

    export.wake()
    await settled()
    await export.finish("shutdown", asyncio.get_running_loop().time() + 10)

    assert rig.trace == [Restarted()]
