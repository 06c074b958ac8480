"""A confluent consumer in memory that does, in each `consume()`, what a test has scripted."""

import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

TOPIC = "t"

Step = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Offset:
    """What a broker answers for one partition; a `TopicPartition` cannot be given an error."""

    topic: str
    partition: int
    offset: int
    metadata: str = ""
    error: KafkaError | None = None


@dataclass
class FakeConsumer:
    """Satisfies what the worker uses of `confluent_kafka.Consumer`, for the topic `t`.

    `script` holds what the next `consume()` calls do and return, one each; without any they return nothing.
    `committed_offsets` is what the group has committed, by partition. `commit_errors` are the answers to the
    next commits (None: success), `offset_errors` those to the next questions for committed offsets, by
    partition. `unseekable` partitions were assigned a moment ago. `trace` is what the worker asked for.
    """

    script: queue.SimpleQueue[Callable[[], list[Message] | None]] = field(default_factory=queue.SimpleQueue)
    committed_offsets: dict[int, tuple[int, str]] = field(default_factory=dict)
    commit_errors: deque[int | None] = field(default_factory=deque)
    offset_errors: deque[dict[int, int]] = field(default_factory=deque)
    unseekable: set[int] = field(default_factory=set)
    trace: list[Step] = field(default_factory=list)
    members: int = 0
    """How often the group's metadata was read."""
    low: int = 0
    high: int = 1_000
    held: set[int] = field(default_factory=set)
    on_assign: Callable[..., None] = print
    on_revoke: Callable[..., None] = print
    on_lost: Callable[..., None] = print

    # ── what happens in the group ────────────────────────────────────────────────────────────

    def gain(self, *indexes: int) -> None:
        """The group gives partitions to this member. Only inside of a scripted `consume()`."""
        self.on_assign(self, [TopicPartition(TOPIC, index) for index in indexes])

    def give_up(self, *indexes: int) -> None:
        """The group takes partitions away, and waits. Only inside of a scripted `consume()`."""
        self.on_revoke(self, [TopicPartition(TOPIC, index) for index in indexes])
        self.trace.append(("revoked", *indexes))

    def lose(self, *indexes: int) -> None:
        """The group has given partitions to others. Only inside of a scripted `consume()`."""
        self.trace.append(("lost", *indexes))
        self.on_lost(self, [TopicPartition(TOPIC, index) for index in indexes])

    # ── what the worker calls ────────────────────────────────────────────────────────────

    def subscribe(self, topics: Sequence[str], **callbacks: Callable[..., None]) -> None:
        self.on_assign, self.on_revoke = callbacks["on_assign"], callbacks["on_revoke"]
        self.on_lost = callbacks["on_lost"]
        self.trace.append(("subscribe", *topics))

    def unsubscribe(self) -> None:
        self.trace.append(("unsubscribe",))
        self.held.clear()

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, index) for index in self.held]

    def consume(self, count: int, timeout: float) -> list[Message]:
        try:
            return self.script.get(timeout=0.005)() or []
        except queue.Empty:
            return []

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[Offset]:
        [target] = offsets
        self.trace.append(("commit", target.partition, target.offset, target.metadata))
        code = self.commit_errors.popleft() if self.commit_errors else None
        if code is not None:
            raise KafkaException(KafkaError(code))
        self.committed_offsets[target.partition] = target.offset, target.metadata or ""
        return [Offset(target.topic, target.partition, target.offset)]

    def committed(self, wanted: list[TopicPartition], timeout: float) -> list[Offset]:
        errors = self.offset_errors.popleft() if self.offset_errors else {}
        found = []
        for asked in wanted:
            code = errors.get(asked.partition)
            offset, metadata = self.committed_offsets.get(asked.partition, (-1001, ""))
            if code is not None:
                found.append(Offset(asked.topic, asked.partition, -1001, "", KafkaError(code)))
            else:
                found.append(Offset(asked.topic, asked.partition, offset, metadata))
        return found

    def get_watermark_offsets(self, wanted: TopicPartition, **how: Any) -> tuple[int, int]:
        return self.low, self.high

    def consumer_group_metadata(self) -> str:
        self.members += 1
        self.trace.append(("metadata",))
        return f"member {self.members}"

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.held |= {tp.partition for tp in partitions}
        self.trace += [("assign", tp.partition, tp.offset) for tp in partitions]
        self.unseekable -= {tp.partition for tp in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.held -= {tp.partition for tp in partitions}
        self.trace += [("unassign", tp.partition) for tp in partitions]

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.trace += [("pause", tp.partition) for tp in partitions]

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.trace += [("resume", tp.partition) for tp in partitions]

    def seek(self, target: TopicPartition) -> None:
        if target.partition in self.unseekable:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.trace.append(("seek", target.partition, target.offset))

    def close(self) -> None:
        self.trace.append(("close",))


def records(index: int, start: int, end: int, size: int = 5) -> list[Message]:
    """The records `[start, end)` of a partition, as `consume()` returns them."""
    return [
        Message(topic=TOPIC, partition=index, offset=offset, key=None, value=b"x" * size)
        for offset in range(start, end)
    ]
