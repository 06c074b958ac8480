"""A partition whose sink sends windows in parts: what is committed, taken over, and made a dead letter of."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from flagstream.chunk import Partition
from flagstream.errors import PartRefused, SinkRefused, SinkUnavailable
from flagstream.export.partition import PartitionExport
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.commit_metadata import Division, Plan
from flagstream.sinks.webhook.body import Part, Parts, PartsEncoder
from flagstream.window import ContentDigest, Manifest
from tests.support.recording import (
    EPOCH,
    PARTITION,
    Committed,
    Failed,
    Planned,
    Put,
    RecordingSink,
    Restarted,
    Step,
    chunk,
    event,
)
from tests.support.virtual_time import in_virtual_time, passed, settled
from tests.unit.export.test_partition import Rig
from tests.unit.export.test_stage import DEAD_LETTERS, Stage

BAD = b"<script"


class PartsRecordingSink(RecordingSink):
    """Takes what does not hold an event that it dislikes, in requests of eight events at most."""

    def __init__(self, trace: list[Step], fingerprint: str = "shape") -> None:
        super().__init__(trace, fingerprint)
        self.knows = False
        self.refuses: Callable[[Part], str | None] = lambda part: "403" if BAD in part.events else None
        self.taken: dict[str, bytes] = {}

    def begin(self, partition: Partition, start: int) -> Any:
        return PartsEncoder(partition, 8, 1 << 20, event_ids=False)

    def parts(self, payload: Parts) -> Sequence[Part]:
        return payload.parts

    def send(self, manifest: Manifest, part: Part) -> int:
        if self.failures:
            failure = self.failures.popleft()
            self.trace.append(Failed(part.id, type(failure).__name__))
            raise failure
        if (code := self.refuses(part)) is not None:
            self.trace.append(Failed(part.id, code))
            raise PartRefused(f"answers {code}", code, denied=code == "403")
        self.trace.append(Put(part.id))
        self.taken[part.id] = part.events
        return len(part.events)


def rig_of(**settings: Any) -> tuple[Rig, PartsRecordingSink]:
    rig = Rig(**settings)
    sink = PartsRecordingSink(rig.trace)
    rig.give(sink)
    return rig, sink


def bad(*offsets: int) -> dict[int, bytes | None]:
    return {offset: b'{"key":"<script","n":%d}' % offset for offset in offsets}


def name(start: int, end: int) -> str:
    return f"{PARTITION}-{start}-{end}"


@in_virtual_time
async def test_the_cut_is_committed_before_the_first_half() -> None:
    """In the plan's own commit, beside the window's start; each later request follows a commit of what was
    settled before it.
    """
    rig, _ = rig_of(max_events=8, on_refused="dead_letter")
    rig.kafka.tells_refusals = True
    export = await rig.begin()
    export.accept(chunk(0, 8, values=bad(5)))
    await settled()

    planned = Planned(0, 8)
    assert rig.trace == [
        *(planned, Failed(name(0, 8), "403")),
        *(planned, Put(name(0, 4))),
        *(planned, Failed(name(4, 8), "403")),
        *(planned, Failed(name(4, 6), "403")),
        *(planned, Put(name(4, 5))),
        *(planned, Failed(name(5, 6), "403")),
        Put(name(6, 8)),  # 5-6 is not settled before something else is accepted
        Restarted(refused="answers 403"),
    ]
    texts = [json.loads(text) for text in rig.kafka.texts]
    assert [(text["v"], text.get("at"), text.get("cuts"), text.get("why")) for text in texts] == [
        (1, None, None, None),
        (2, 0, "4", "403"),
        (2, 4, None, "403"),
        (2, 4, "2", "403"),
        (2, 4, "1.1", "403"),
        (2, 5, "1", "403"),
    ]


@in_virtual_time
async def test_one_bad_event_becomes_one_dead_letter() -> None:
    """In one transaction with the window's end; the next window begins where this one ends."""
    stage = Stage(PartsRecordingSink, max_events=8, on_refused="dead_letter")
    await stage.assigned()

    await stage.feed(chunk(0, 8, values=bad(5)))
    await stage.feed(chunk(0, 16, values=bad(5), epoch=EPOCH + 1))

    [(topic, value, headers)] = stage.producer.records
    assert (topic, value) == (DEAD_LETTERS, bad(5)[5])
    assert headers["flagstream-error"] == b"answers 403"
    assert stage.source.committed[PARTITION] == (16, Metadata().text())
    assert isinstance(stage.sink, PartsRecordingSink)
    assert list(stage.sink.taken) == [name(0, 4), name(4, 5), name(6, 8), name(8, 16)]


@in_virtual_time
async def test_a_receiver_that_refuses_everything_makes_no_dead_letters() -> None:
    """However long it lasts: it is reported, tried again, and when it is over all events are there."""
    stage = Stage(PartsRecordingSink, max_events=100, on_refused="dead_letter", refused_after=1.0)
    sink = stage.sink
    assert isinstance(sink, PartsRecordingSink)
    takes, sink.refuses = sink.refuses, lambda part: "400"
    await stage.assigned()

    await stage.feed(chunk(0, 100))
    await passed(3_600)
    assert stage.producer.records == []
    [problem] = stage.stage.problems()
    assert problem.kind == "sink_refused"
    assert "nothing becomes a dead letter" in problem.text

    sink.refuses = takes
    await passed(120)
    assert stage.source.committed[PARTITION][0] == 100
    assert b",".join(sink.taken.values()) == b",".join(event(offset) for offset in range(100))
    assert stage.producer.records == []


@in_virtual_time
async def test_an_unanswered_try_is_not_divided() -> None:
    """The answer got lost, then the receiver refuses: the part keeps its id, and it is said why."""
    rig, sink = rig_of(max_events=8)
    sink.failures.append(SinkUnavailable("no answer"))
    export = await rig.begin()

    export.accept(chunk(0, 8, values=bad(5)))
    await passed(5)

    assert {step.name for step in rig.trace if isinstance(step, Failed)} == {name(0, 8)}
    assert all('"v":1' in text for text in rig.kafka.texts)
    export.drop()


@in_virtual_time
async def test_an_unanswered_try_behind_a_refusal_is_not_divided() -> None:
    """The answer got lost, and the repetition met missing rights; then the receiver refuses the part."""
    rig, sink = rig_of(max_events=8)
    sink.failures.append(SinkRefused("answers 401", denied=True, repeated=True))
    export = await rig.begin()

    export.accept(chunk(0, 8, values=bad(5)))
    await passed(5)

    assert {step.name for step in rig.trace if isinstance(step, Failed)} == {name(0, 8)}
    assert all('"v":1' in text for text in rig.kafka.texts)
    export.drop()


@in_virtual_time
async def test_what_was_surely_not_sent_may_be_divided() -> None:
    """A receiver that was down, or said that it is busy, has taken nothing."""
    rig, sink = rig_of(max_events=8)
    sink.failures.append(SinkUnavailable("connection refused", unanswered=False))
    export = await rig.begin()

    export.accept(chunk(0, 8, values=bad(5)))
    await passed(5)

    assert Put(name(0, 4)) in rig.trace
    export.drop()


async def taken_over(rig: Rig, division: Division | None, values: dict[int, bytes | None]) -> PartitionExport:
    """The window [0, 24) from an owner that had planned it."""
    content = ContentDigest()
    content.update(values.get(offset) or event(offset) for offset in range(24))
    planned = Plan(24, 24, content.hexdigest(), "shape", division=division)
    export = await rig.begin(committed=0, metadata=Metadata(planned).text())
    export.accept(chunk(0, 24, values=values))
    await settled()
    return export


@in_virtual_time
async def test_a_plan_of_before_is_delivered_as_before() -> None:
    """A plan of version 1: all its parts, under the ids that they always had, without further commits."""
    rig, _ = rig_of()
    await taken_over(rig, None, {})

    assert [step for step in rig.trace if isinstance(step, Put)] == [
        Put(name(0, 8)),
        Put(name(8, 16)),
        Put(name(16, 24)),
    ]
    assert [json.loads(text)["v"] for text in rig.kafka.texts] == [1]


@in_virtual_time
async def test_an_undivided_plan_is_not_divided_by_who_takes_it_over() -> None:
    """Its owner may have had the refused part accepted before."""
    rig, _ = rig_of()
    export = await taken_over(rig, None, bad(12))
    await passed(5)

    assert {step.name for step in rig.trace if isinstance(step, Put | Failed)} == {name(0, 8), name(8, 16)}
    assert rig.kafka.texts == []
    export.drop()


@in_virtual_time
async def test_a_divided_plan_goes_on_where_it_was() -> None:
    """Under the cuts that it names; what it calls settled is not sent, and its refusals are remembered."""
    rig, sink = rig_of(on_refused="dead_letter")
    rig.kafka.tells_refusals = True
    await taken_over(rig, Division(13, (14, 16), ((12, 13),), "403"), bad(12, 22))

    assert list(sink.taken) == [name(13, 14), name(14, 16), name(16, 20), name(20, 22), name(23, 24)]
    restarted = rig.trace[-1]
    assert isinstance(restarted, Restarted)
    assert restarted.refused is not None


@in_virtual_time
async def test_after_a_division_no_plan_travels_ahead() -> None:
    """The plan of the next window is undivided. A worker that took it over would not divide it, and be stuck
    at a receiver with a small limit; so it is committed only when its turn comes.
    """
    rig, sink = rig_of(max_events=8)
    sink.refuses = lambda part: "413" if part.count > 4 else None
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 24))
    await settled()
    rig.kafka.delivering.set()
    await passed(5)

    committed = [step for step in rig.trace if isinstance(step, Committed)]
    assert committed == [Committed(8), Committed(16), Committed(24)]
    export.drop()


@in_virtual_time
async def test_a_wait_for_the_receiver_can_be_dropped() -> None:
    """A partition that is given away in mid-window sends nothing more and commits nothing more."""
    rig, sink = rig_of(max_events=16)
    rig.kafka.delivering.clear()
    export = await rig.begin()
    export.accept(chunk(0, 16, values=bad(3)))
    await settled()

    export.drop()
    rig.kafka.delivering.set()
    await passed(60)

    assert sink.taken == {}
    assert len(rig.kafka.texts) == 1


@in_virtual_time
async def test_a_sink_that_names_what_it_refuses_loses_no_other_event() -> None:
    """A sink of any kind that took a window but for some events: they alone become dead letters, and the next
    window begins where this one ends, since it is stored.
    """
    stage = Stage(max_events=4, on_refused="dead_letter")
    stage.sink.failures.append(SinkRefused("one is bad", events={2: "has no name"}))
    await stage.assigned()

    await stage.feed(chunk(0, 4))
    await stage.feed(chunk(0, 8, epoch=EPOCH + 1))

    [(_, value, headers)] = stage.producer.records
    assert value == event(2)
    assert headers["flagstream-error"] == b"has no name"
    assert [str(held) for held in stage.sink.objects] == [name(4, 8)]
    assert stage.source.committed[PARTITION] == (8, Metadata().text())
