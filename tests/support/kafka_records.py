"""Topics and records for tests, through clients that share no code with the worker."""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic


class Sent(NamedTuple):
    """A record to produce; without a partition (-1) its key decides, time 0 is now."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None = None
    partition: int = -1
    timestamp_ms: int = 0


class Received(NamedTuple):
    """A record as a `read_committed` consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


def create_topic(
    admin: AdminClient, name: str, partitions: int = 1, config: Mapping[str, str] | None = None
) -> str:
    """Create a topic called `name` and a random ending, and return that name once the broker knows it.

    It has as many copies as the broker makes by default.
    """
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(unique, partitions, -1, config=dict(config or {}))])[unique].result(
        timeout=30
    )
    give_up = time.monotonic() + 30
    # The broker answers before its own metadata has the topic.
    while unique not in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < give_up, f"{unique} was created, and is not there"
    return unique


def produce(bootstrap_servers: str, topic: str, records: Iterable[Sent]) -> None:
    """Produce in order; returns when the broker has acknowledged each one, else raises KafkaException."""
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 5})
    for record in records:
        while True:
            try:
                producer.produce(
                    topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers or []),
                    partition=record.partition,
                    timestamp=record.timestamp_ms,
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    unsent = producer.flush(60)
    if failures or unsent:
        raise KafkaException(failures[0] if failures else KafkaError(KafkaError._TIMED_OUT))


def consume_all(bootstrap_servers: str, topic: str, timeout: float = 60.0) -> list[Received]:
    """Return every record of a topic from its beginning to its present end, by partition and offset.

    Reads `read_committed`, so it ends before the first transaction that is still open. Raises TimeoutError
    when the end is not reached within `timeout` seconds, and KafkaException for an unknown topic.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"test-reader-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            # the end of a partition is not its last record: transactions end in markers that no one sees
            "enable.partition.eof": True,
        }
    )
    try:
        return sorted(_read_to_end(consumer, topic, time.monotonic() + timeout))
    finally:
        consumer.close()


def end_offset(bootstrap_servers: str, topic: str) -> int:
    """End of partition 0, what is not committed included."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "unused", "isolation.level": "read_uncommitted"}
    )
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1])
    finally:
        consumer.close()


def _read_to_end(consumer: Consumer, topic: str, deadline: float) -> list[Received]:
    metadata = consumer.list_topics(topic, timeout=10).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    unfinished = set(metadata.partitions)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unfinished])
    records: list[Received] = []
    while unfinished:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{topic}: no end in partitions {sorted(unfinished)} after {len(records)} records"
            )
        for message in consumer.consume(10_000, timeout=0.2):
            error = message.error()
            if error is None:
                records.append(_received(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                unfinished.discard(_number(message.partition()))
            elif not error.retriable():
                raise KafkaException(error)
    return records


def _received(message: Message) -> Received:
    return Received(
        partition=_number(message.partition()),
        offset=_number(message.offset()),
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=[(name, _bytes(value) or b"") for name, value in _pairs(message)],
        timestamp_ms=message.timestamp()[1],
    )


def _pairs(message: Message) -> list[tuple[str, str | bytes | None]]:
    # Its type also covers what producers may hand in, a dict; what comes back is always a list.
    headers = message.headers() or []
    assert isinstance(headers, list)
    return headers


def _number(value: int | None) -> int:
    assert value is not None
    return value


def _bytes(value: object) -> bytes | None:
    assert value is None or isinstance(value, bytes)
    return value
