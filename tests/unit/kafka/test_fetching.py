"""What is fetched: whatever neither the stage nor a lack of room holds back, from the next offset on."""

from typing import cast

import pytest
from confluent_kafka import Consumer

from flagstream.chunk import Partition, Position
from flagstream.kafka.assignment import Assignment
from flagstream.kafka.fetching import Fetching
from flagstream.memory import Weight
from tests.unit.kafka.fake_consumer import TOPIC, FakeConsumer

FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)


class Rig:
    """Two partitions that are held, the first from offset 5 on, the second from 7 on."""

    def __init__(self) -> None:
        self.consumer = FakeConsumer()
        self.assignment = Assignment(TOPIC, 1_000, lambda weight: Weight())
        self.assignment.hold(FIRST, Position(1, 5))
        self.assignment.hold(SECOND, Position(2, 7))
        self.fetching = Fetching(self.assignment)
        self.fetching.consumer = cast(Consumer, self.consumer)

    @property
    def trace(self) -> list[tuple[object, ...]]:
        """What the consumer was asked for since the last look."""
        found, self.consumer.trace = self.consumer.trace, []
        return found


def test_a_partition_that_is_resumed_is_sought() -> None:
    """librdkafka drops what it had fetched before the pause, so the position is set rather than trusted."""
    rig = Rig()
    rig.fetching.pause(FIRST)
    assert rig.trace == [("pause", 0)]

    rig.fetching.resume(FIRST)

    assert rig.trace == [("resume", 0), ("seek", 0, 5)]
    assert rig.assignment.paused == set()


def test_every_partition_is_sought_when_there_is_room_again() -> None:
    """When there is room again every partition is resumed and sought."""
    rig = Rig()
    rig.fetching.throttle()
    assert rig.trace == [("pause", 0), ("pause", 1)]

    rig.fetching.unthrottle()

    assert sorted(rig.trace) == [("resume", 0), ("resume", 1), ("seek", 0, 5), ("seek", 1, 7)]


def test_what_the_stage_has_paused_stays_paused_when_there_is_room_again() -> None:
    """A partition that the stage paused while the consumer was throttled stays paused afterwards."""
    rig = Rig()
    rig.fetching.throttle()
    rig.fetching.pause(FIRST)
    assert rig.trace == [("pause", 0), ("pause", 1), ("pause", 0)]

    rig.fetching.unthrottle()

    assert rig.trace == [("resume", 1), ("seek", 1, 7)]


def test_what_the_stage_resumes_is_not_fetched_while_there_is_no_room() -> None:
    """A partition that the stage resumes while the consumer is throttled is fetched later, with all
    others.
    """
    rig = Rig()
    rig.fetching.pause(FIRST)
    rig.fetching.throttle()
    rig.trace  # noqa: B018  # forgets the steps until here

    rig.fetching.resume(FIRST)
    assert rig.trace == []

    rig.fetching.unthrottle()
    assert ("resume", 0) in rig.trace


def test_a_rewound_partition_is_fetched_although_it_was_paused() -> None:
    """A rewind ends a pause, because whoever paused the partition is gone with the former tenure."""
    rig = Rig()
    rig.fetching.pause(FIRST)
    rig.assignment.hold(FIRST, Position(3, 2))

    rig.fetching.restart(FIRST)

    assert rig.trace == [("pause", 0), ("resume", 0), ("seek", 0, 2)]
    assert rig.assignment.paused == set()


def test_a_rewound_partition_is_not_fetched_while_there_is_no_room() -> None:
    """A rewind of a throttled consumer sets the position, and resumes nothing."""
    rig = Rig()
    rig.fetching.pause(FIRST)
    rig.fetching.throttle()
    rig.trace  # noqa: B018  # forgets the steps until here

    rig.fetching.restart(FIRST)

    assert rig.trace == [("seek", 0, 5)]


@pytest.mark.parametrize("throttled", [False, True])
def test_a_new_partition_is_fetched_unless_there_is_no_room(throttled: bool) -> None:
    """A new partition is resumed or paused explicitly: librdkafka keeps one paused that was paused when it
    was taken away.
    """
    rig = Rig()
    rig.fetching.throttled = throttled

    rig.fetching.assign({FIRST: Position(1, 5)})

    assert rig.trace == [("assign", 0, 5), ("pause" if throttled else "resume", 0)]


def test_an_assignment_of_nothing_is_confirmed() -> None:
    """An assignment without partitions resumes and pauses nothing."""
    rig = Rig()
    rig.fetching.assign({})

    assert rig.trace == []


@pytest.mark.parametrize("paused", [False, True])
def test_a_partition_that_is_not_fetched_yet_is_assigned_at_its_offset(paused: bool) -> None:
    """librdkafka cannot seek a partition that it does not fetch yet, so it is assigned again at the offset.
    That forgets a pause, which is repeated.
    """
    rig = Rig()
    if paused:
        rig.assignment.paused.add(FIRST)
    rig.consumer.unseekable = {0}

    rig.fetching.seek(FIRST)

    assert rig.trace == [("unassign", 0), ("assign", 0, 5)] + [("pause", 0)] * paused
