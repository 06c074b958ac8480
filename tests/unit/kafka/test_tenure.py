"""A tenure passes its own partition and epoch, and asks the consumer's thread once for each step."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from flagstream.chunk import Partition, Position
from flagstream.errors import OwnershipLost
from flagstream.kafka.commit_metadata import GroupStart
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Tenure, rewind
from tests.support.virtual_time import in_virtual_time

T = TypeVar("T")
FIRST, SECOND = Partition("t", 0), Partition("t", 1)


@dataclass
class RecordingHolder:
    """A consumer that writes down what its thread is asked for. `refusals` commits have to be tried again;
    `held` are the epochs that still stand.
    """

    trace: list[tuple[Any, ...]] = field(default_factory=list)
    held: dict[Partition, int] = field(default_factory=lambda: {FIRST: 1, SECOND: 2})
    refusals: int = 0
    group: str = "g"
    group_start: GroupStart | None = None
    fresh: bool = True
    progress: Progress = field(default_factory=lambda: Progress("test", "t"))

    async def call(self, function: Callable[[], T]) -> T:
        self.trace.append(("call",))
        return function()

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        self.trace.append(("commit", partition, epoch, offset, metadata))
        self.refusals -= 1
        return self.refusals < 0

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        self.trace.append(("metadata", dict(epochs)))
        return "metadata"

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> Mapping[Partition, Position]:
        self.trace.append(("rewind", dict(epochs), to))
        still = [partition for partition, epoch in epochs.items() if self.held.get(partition) == epoch]
        return {partition: Position(9, to or 0) for partition in still}

    def pause(self, partition: Partition, epoch: int) -> None:
        self.trace.append(("pause", partition, epoch))

    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int:
        self.trace.append(("resume", partition, epoch, start))
        return 8


def tenures(holder: RecordingHolder) -> tuple[Tenure, Tenure]:
    """Return the tenures of both partitions."""
    return Tenure(FIRST, Position(1, 5), holder), Tenure(SECOND, Position(2, 7), holder)


def test_each_step_is_one_call_of_the_thread() -> None:
    """Between two calls a rebalance may come."""
    holder = RecordingHolder()
    first, second = tenures(holder)

    async def steps() -> None:
        await first.commit(6, "a plan")
        assert await first.group_metadata(second) == "metadata"
        await first.pause()
        await first.resume()
        assert await first.fetch_again(4) == 8

    asyncio.run(steps())

    assert holder.trace == [
        ("call",),
        ("commit", FIRST, 1, 6, "a plan"),
        ("call",),
        ("metadata", {FIRST: 1, SECOND: 2}),
        ("call",),
        ("pause", FIRST, 1),
        ("call",),
        ("resume", FIRST, 1, None),
        ("call",),
        ("resume", FIRST, 1, 4),
    ]


@in_virtual_time
async def test_a_commit_is_repeated_the_same_until_it_is_answered() -> None:
    """With pauses, in which the thread polls."""
    holder = RecordingHolder(refusals=3)
    first, _ = tenures(holder)

    await first.commit(6, "a plan")

    assert [step for step in holder.trace if step[0] == "commit"] == [("commit", FIRST, 1, 6, "a plan")] * 4
    assert 0.05 < asyncio.get_running_loop().time() < 1.0


def test_a_rewind_makes_a_new_tenure() -> None:
    """Of a partition that is held; otherwise the tenure is over."""
    holder = RecordingHolder(held={FIRST: 1})
    first, second = tenures(holder)

    again = asyncio.run(first.rewind(3))
    assert (again.partition, again.epoch, again.position.offset) == (FIRST, 9, 3)

    with pytest.raises(OwnershipLost, match="t-1"):
        asyncio.run(second.rewind())


def test_tenures_that_rewind_together_ask_once() -> None:
    """Those that are over are left out, and no tenure asks nothing."""
    holder = RecordingHolder(held={SECOND: 2})

    [again] = asyncio.run(rewind(tenures(holder)))
    assert asyncio.run(rewind([])) == []

    assert again.partition == SECOND
    assert holder.trace == [("call",), ("rewind", {FIRST: 1, SECOND: 2}, None)]


def test_a_tenure_knows_what_its_stage_needs_of_the_group() -> None:
    """The group's name and start, and the age of the last poll. It also reports what transactions commit."""
    holder = RecordingHolder(group_start=GroupStart(5, 1), fresh=False)
    first, _ = tenures(holder)
    holder.progress.begin(FIRST, first.position)

    first.committed_in_transaction(7)

    assert (first.group, first.group_start, first.fresh) == ("g", GroupStart(5, 1), False)
    assert holder.progress._held[FIRST].committed == 7
