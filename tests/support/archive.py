"""What a file sink stored and what its group committed, read without the worker's code."""

import gzip
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

_NAME = re.compile(r"(\d{19})-(\d{19})\.jsonl(\.gz)?")


class StoredWindow(NamedTuple):
    """A file: its range, and its lines as bytes."""

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
        assert match is not None, f"{file} is no name of a window"
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


def committed(bootstrap: str, group: str, topic: str, partition: int = 0) -> Committed:
    """What the group committed, with its metadata; asked without joining the group."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=20)
    finally:
        consumer.close()
    assert found.error is None, found.error
    return Committed(max(found.offset, -1), found.metadata or "")


def reset(admin: AdminClient, group: str, topic: str, offset: int, partition: int = 0) -> None:
    """Set the offset of a group without members, as an operator does: without metadata."""
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
    answer = admin.alter_consumer_group_offsets([wanted])[group].result(timeout=20)
    assert all(partition.error is None for partition in answer.topic_partitions), answer.topic_partitions
