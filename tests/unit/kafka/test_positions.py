"""Where reading starts, when Kafka does not answer all that is asked."""

import itertools
import threading
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from worker.chunk import Partition
from worker.kafka.positions import UNKNOWN_END, StartingPoints
from worker.kafka.reports import Reports


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
    monkeypatch.setattr("worker.kafka.positions.QUERY_SECONDS", 0.0)
    reports = Reports("test", "t")
    starts = StartingPoints("t", "beginning", itertools.count(1), reports, threading.Event(), lambda: None)
    starts.consumer = cast(Consumer, OneWithoutLeader({0: 5, 1: 6, 2: 7}))

    found = starts.resolve([Partition("t", index) for index in range(3)])

    assert [(p.index, x.offset, x.low, x.high, x.readable) for p, x in found.items()] == [
        (0, 5, 3, 90, True),
        (1, 6, 0, UNKNOWN_END, True),
        (2, 7, 0, UNKNOWN_END, True),
    ]
    assert "LEADER_NOT_AVAILABLE" in reports.problem
