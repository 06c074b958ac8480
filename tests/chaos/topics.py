"""Topics from beginning to end, as a `read_committed` consumer sees them, without holding them in memory."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

SILENCE = 60.0
"""Seconds without an answer after which reading fails."""


class Seen(NamedTuple):
    """A record as a reader sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


class Topics:
    """Joins no group, commits nothing. Raises TimeoutError when the broker is silent, else KafkaException.

    One consumer reads everything, one thing after the other: a new one takes half a second to get going.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._reader = self._consumer("nobody")

    def partitions(self, topic: str) -> list[int]:
        """Return their numbers."""
        return sorted(self._reader.list_topics(topic, timeout=SILENCE).topics[topic].partitions)

    def committed(self, group: str, topic: str) -> dict[int, tuple[int, str]]:
        """Return the committed offset and metadata of each partition."""
        wanted = [TopicPartition(topic, partition) for partition in self.partitions(topic)]
        with closing(self._consumer(group)) as consumer:
            found = consumer.committed(wanted, timeout=SILENCE)
        return {tp.partition: (tp.offset, tp.metadata or "") for tp in found}

    def records(self, topic: str, partition: int | None = None) -> Iterator[Seen]:
        """The records of a topic, or of one partition; to be read to their end before anything else."""
        unfinished = set(self.partitions(topic) if partition is None else [partition])
        self._reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unfinished])
        while unfinished:
            messages = self._reader.consume(10_000, timeout=0.1) or self._reader.consume(1, timeout=SILENCE)
            if not messages:
                raise TimeoutError(f"{topic}: nothing for {SILENCE:g} s; not at the end: {unfinished}")
            yield from _readable(messages, unfinished)

    def close(self) -> None:
        self._reader.close()

    def _consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # the end of a partition is not its last record: transactions end in markers that no one sees
                "enable.partition.eof": True,
                # by which the end is reported later than it could be
                "fetch.wait.max.ms": 10,
            }
        )


def _readable(messages: Iterable[Message], unfinished: set[int]) -> Iterator[Seen]:
    for message in messages:
        error = message.error()
        if error is None:
            yield _seen(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            unfinished.discard(int(message.partition() or 0))
        elif not error.retriable():
            raise KafkaException(error)


def _seen(message: Message) -> Seen:
    headers = message.headers() or []
    assert isinstance(headers, list)  # the type also covers what producers may hand in
    return Seen(
        int(message.partition() or 0),
        int(message.offset() or 0),
        _bytes(message.key()),
        _bytes(message.value()),
        [(name, _bytes(value) or b"") for name, value in headers],
        message.timestamp()[1],
    )


def _bytes(value: object) -> bytes | None:
    assert value is None or isinstance(value, bytes)
    return value
