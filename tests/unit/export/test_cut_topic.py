"""A topic that was cut below what is exported: the export that begins at the hole takes nothing and stops."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Partition, Position
from flagstream.export.phases import Event
from flagstream.export.restarts import Restart, StartAgain
from flagstream.kafka.commit_metadata import GroupStart
from flagstream.kafka.tenure import Tenure
from flagstream.window import OffsetRange
from tests.support.recording import EPOCH, PARTITION, RecordingSink, chunk
from tests.support.virtual_time import in_virtual_time, passed
from tests.unit.export.test_stage import Stage


class Blind(RecordingSink):
    """A sink that cannot know what it holds."""

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        return None


async def cut(rig: Stage, at: int) -> None:
    """Report as the consumer does: with the tenure of the assignment, whose position is long exported."""
    held = rig.stage._exports[PARTITION].tenure
    again = Tenure(PARTITION, held.position, held._holder)
    await rig.stage.records_missing(again, Position(EPOCH, at, None, "", 0, 2))


@pytest.mark.parametrize("sink", [RecordingSink, Blind])
@in_virtual_time
async def test_a_partition_of_a_cut_topic_looks_again(sink: type[RecordingSink]) -> None:
    """It is stopped, and a person who says that it is mended is heard."""
    rig = Stage(sink, flush_interval=3_000.0)
    await rig.assigned()
    await rig.feed(chunk(0, 4))

    await cut(rig, at=4)
    await passed(10)
    assert list(rig.stage.stopped) == [PARTITION]
    rig.stage.look()
    rig.stage.look_now()
    await passed(10)

    assert rig.source.rewinds == [None]


@in_virtual_time
async def test_the_committed_offset_is_not_set_back() -> None:
    """Not even under start = "latest", which commits where a group begins."""
    rig = Stage(Blind, flush_interval=3_000.0)
    rig.source.group_start = GroupStart(1, 4)
    await rig.assigned()
    await rig.feed(chunk(0, 4))
    await passed(10)

    await cut(rig, at=4)
    await passed(10)

    assert rig.source.committed[PARTITION][0] == 4


@in_virtual_time
async def test_chunks_under_way_are_dropped() -> None:
    """They are of the topic as it was."""
    rig = Stage(flush_interval=3_000.0)
    await rig.assigned()
    await rig.feed(chunk(0, 3))
    await cut(rig, at=6)

    with capture_logs() as lines:
        await rig.feed(chunk(3, 6))

    assert [line for line in lines if line["event"] == "chunk_out_of_order"] == []


@in_virtual_time
async def test_a_transition_that_the_table_does_not_have_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that is met while an error is handled."""
    rig = Stage(flush_interval=3_000.0)
    await rig.assigned()

    async def odd(*arguments: object) -> None:
        raise StartAgain(Event.OFFSETS_LOST, Restart())

    monkeypatch.setattr(rig.stage._exports[PARTITION], "_export", odd)
    await rig.feed(chunk(0, 4))
    await passed(10)

    assert len(rig.errors) == 1
