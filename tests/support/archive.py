"""What a file sink stored and what its group committed, read without the worker's code."""

import gzip
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

_NAME = re.compile(r"(\d{19})-(\d{19})\.jsonl(\.gz)?")


class StoredWindow(NamedTuple):
    """Holds what a file says: its range, and its lines as bytes."""

    start: int
    end: int
    lines: list[bytes]


class Committed(NamedTuple):
    """A group's offset of a partition; -1 where there is none."""

    offset: int
    metadata: str


def stored(folder: Path, topic: str, partition: int = 0) -> list[StoredWindow]:
    """The windows of a partition under the default names, in order of their start."""
    windows = []
    for file in sorted((folder / topic / str(partition)).glob("*")):
        match = _NAME.fullmatch(file.name)
        assert match is not None, f"{file} is not a name of a window"
        content = gzip.decompress(file.read_bytes()) if match[3] else file.read_bytes()
        windows.append(StoredWindow(int(match[1]), int(match[2]), content.splitlines()))
    return windows


def ranges(windows: list[StoredWindow]) -> list[tuple[int, int]]:
    """Start and end of each."""
    return [(window.start, window.end) for window in windows]


def lines(windows: list[StoredWindow]) -> list[bytes]:
    """All lines in order; fails when the ranges do not join onto each other."""
    for one, other in pairwise(windows):
        assert one.end == other.start, f"no tiling: {ranges(windows)}"
    return [line for window in windows for line in window.lines]


def committed(admin: AdminClient, group: str, topic: str, partitions: int = 1) -> list[Committed]:
    """What the group committed of a topic's partitions; not before an open transaction has ended."""
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    request = [ConsumerGroupTopicPartitions(group, wanted)]
    found = admin.list_consumer_group_offsets(request, require_stable=True)[group].result(timeout=30)
    offsets = sorted(found.topic_partitions or [], key=lambda partition: partition.partition)
    assert all(partition.error is None for partition in offsets), offsets
    return [Committed(max(partition.offset, -1), partition.metadata or "") for partition in offsets]


def reset(admin: AdminClient, group: str, topic: str, offset: int, partition: int = 0) -> None:
    """Set the offset of a group without members, as an operator does: without metadata."""
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
    answer = admin.alter_consumer_group_offsets([wanted])[group].result(timeout=20)
    assert all(partition.error is None for partition in answer.topic_partitions), answer.topic_partitions
