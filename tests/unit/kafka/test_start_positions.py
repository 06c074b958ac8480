"""Where reading starts, when Kafka does not answer all that is asked."""

import itertools
import threading
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flagstream.chunk import Partition
from flagstream.errors import ExitCode, Fatal
from flagstream.kafka.commit_metadata import Committed, GroupStart
from flagstream.kafka.reports import Reports
from flagstream.kafka.start_positions import UNKNOWN_END, StartPositions
from flagstream.units import Start


class OneWithoutLeader:
    """A consumer of a topic whose partition 1 has no leader."""

    def __init__(self, commits: dict[int, int]) -> None:
        self._commits = commits

    def committed(self, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [
            TopicPartition(tp.topic, tp.partition, self._commits.get(tp.partition, -1001)) for tp in wanted
        ]

    def get_watermark_offsets(self, wanted: TopicPartition, **how: Any) -> tuple[int, int] | None:
        if wanted.partition == 1:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return None if wanted.partition == 2 else (3, 90)


def test_a_partition_without_a_leader_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the group left off is known without it; what the partition holds is not asked for any longer."""
    monkeypatch.setattr("flagstream.kafka.start_positions.QUERY_SECONDS", 0.0)
    reports = Reports("test", "t")
    starts = StartPositions("t", "beginning", itertools.count(1), reports, threading.Event(), lambda: None)
    starts.consumer = cast(Consumer, OneWithoutLeader({0: 5, 1: 6, 2: 7}))

    found = starts.resolve([Partition("t", index) for index in range(3)])

    assert [(p.index, x.offset, x.low, x.high, x.readable) for p, x in found.items()] == [
        (0, 5, 3, 90, True),
        (1, 6, 0, UNKNOWN_END, True),
        (2, 7, 0, UNKNOWN_END, True),
    ]
    assert "LEADER_NOT_AVAILABLE" in reports.problem


BEGAN = GroupStart(1_700_000_000_000, 2)


class Group:
    """A consumer in a group that has committed ``commits`` (metadata by partition, all at offset 7).

    The partitions of its topic hold the offsets 3 to 90 each. The first record since ``BEGAN`` is at 40.
    """

    def __init__(self, partitions: int, commits: dict[int, str]) -> None:
        self._partitions = partitions
        self._commits = commits

    def list_topics(self, topic: str, timeout: float) -> object:
        return SimpleNamespace(
            topics={topic: SimpleNamespace(partitions=dict.fromkeys(range(self._partitions)))}
        )

    def committed(self, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert wanted  # librdkafka takes none for all that are assigned
        return [
            TopicPartition(tp.topic, tp.partition, 7, self._commits[tp.partition])
            if tp.partition in self._commits
            else TopicPartition(tp.topic, tp.partition, -1001)
            for tp in wanted
        ]

    def get_watermark_offsets(self, wanted: TopicPartition, **how: Any) -> tuple[int, int]:
        return 3, 90

    def offsets_for_times(self, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert all(tp.offset >= 0 for tp in wanted)  # negative numbers have meanings of their own in Kafka
        return [TopicPartition(tp.topic, tp.partition, 40 if tp.offset <= BEGAN.at else -1) for tp in wanted]


def begin(group: Group, *indexes: int, start: Start = "latest") -> tuple[StartPositions, list[int]]:
    """The starting points of a member that is assigned the partitions ``indexes``, and where it starts."""
    reports = Reports("test", "t")
    starts = StartPositions("t", start, itertools.count(1), reports, threading.Event(), lambda: None)
    starts.consumer = cast(Consumer, group)
    found = starts.resolve([Partition("t", index) for index in indexes])
    return starts, [found[Partition("t", index)].offset for index in indexes]


def told(group_start: GroupStart | None) -> str:
    """The metadata of a commit that carries ``group_start``."""
    return Committed(group_start=group_start).text()


@pytest.mark.parametrize("when", ["1969-12-31T23:59:59.999+00:00", "0001-01-01T00:00:00+00:00"])
def test_a_start_before_1970_is_the_first_record_since_then(when: str) -> None:
    """Kafka takes the millisecond before 1970 for the end; Go writes the year 1 for no time."""
    _, offsets = begin(Group(1, {}), 0, start=datetime.fromisoformat(when))

    assert offsets == [40]


def test_a_group_begins_at_latest_once() -> None:
    """The first member to ask decides when that was, and how many partitions there were."""
    starts, offsets = begin(Group(2, {}), 0, 1)

    assert offsets == [90, 90]
    assert starts.group_start is not None
    assert starts.group_start.partitions == 2


@pytest.mark.parametrize("start", ["latest", "beginning"])
def test_when_the_group_began_is_known_to_who_has_all_offsets(start: Start) -> None:
    """Every commit from now on must carry it: a partition that is added next has nothing else to go by.
    Also while another ``start`` is configured.
    """
    starts, offsets = begin(Group(2, {0: told(BEGAN), 1: told(BEGAN)}), 0, 1, start=start)

    assert offsets == [7, 7]
    assert starts.group_start == BEGAN


def test_when_the_group_began_is_known_to_who_holds_a_partition_that_forgot_it() -> None:
    """Another member's partition carries it."""
    starts, _ = begin(Group(2, {0: told(None), 1: told(BEGAN)}), 0)

    assert starts.group_start == BEGAN


def test_of_two_beginnings_the_earliest_counts() -> None:
    """Two members asked at the same moment and both decided; nothing after the first is stepped over."""
    later = GroupStart(BEGAN.at + 5, 2)

    starts, offsets = begin(Group(3, {0: told(later), 1: told(BEGAN)}), 0, 2)

    assert starts.group_start == BEGAN
    assert offsets == [7, 3]


def test_a_partition_that_the_group_began_with_starts_then() -> None:
    """It is first assigned only now, and what came in between is read."""
    _, offsets = begin(Group(2, {0: told(BEGAN)}), 1)

    assert offsets == [40]


def test_a_group_that_has_forgotten_when_it_began_reads_a_new_partition_whole() -> None:
    """Earlier versions kept it only until the first restart. The partition's end is not an answer: what it
    holds came after the group began. It may be more than that, but nothing is stepped over.
    """
    starts, offsets = begin(Group(3, {0: told(None), 1: "reset by ops"}), 0, 1, 2)

    assert offsets == [7, 7, 3]
    assert starts.group_start is None


def test_a_beginning_without_a_count_reads_whole_what_has_no_offset() -> None:
    """An early version did not say how many partitions there were, so each may have been added later."""
    starts, offsets = begin(Group(2, {0: '{"v":1,"since":1700000000000}'}), 0, 1)

    assert offsets == [7, 3]
    assert starts.group_start == GroupStart(BEGAN.at, 0)


def test_a_beginning_that_cannot_be_read_is_not_decided_again() -> None:
    """Metadata of a later version may hold it. Where everything has an offset it need not be known."""
    group = Group(2, {0: '{"v":2,"since":1700000000000,"of":2}'})

    with pytest.raises(Fatal, match="when the group began") as failure:
        begin(group, 1)
    assert failure.value.code == ExitCode.KAFKA
    _, offsets = begin(group, 0)
    assert offsets == [7]


def test_a_rewind_forgets_nothing() -> None:
    """A partition whose first commit is still under way starts where it did, however late that is."""
    group = Group(2, {0: told(BEGAN)})
    starts, _ = begin(group, 0, 1)
    group._commits.clear()

    found = starts.resolve([Partition("t", 1)])

    assert starts.group_start == BEGAN
    assert found[Partition("t", 1)].offset == 40
