"""The transactional producer on a real Kafka: what it says of a transaction that went wrong."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flagstream.config.settings import KafkaSettings, Settings
from flagstream.kafka.properties import producer_properties
from flagstream.kafka.transactions import NotQueued, RecordTooLarge, TransactionalProducer
from tests.kafka.conftest import TopicFactory
from tests.support.kafka_records import Received

LARGE = [{"key": b"k", "value": os.urandom(5_000)}]
SMALL = [{"key": b"k", "value": b"v"}]
SECONDS = 30.0


@pytest.fixture
def producer(bootstrap: str) -> Iterator[TransactionalProducer]:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap))
    made = TransactionalProducer(producer_properties(settings, f"test.{uuid.uuid4().hex}"), stable=False)
    made.open()
    yield made
    made.close()


def until_not_queued(call: Callable[[], object]) -> None:
    """Call until the producer takes no more."""
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        try:
            call()
        except NotQueued:
            return
    raise AssertionError("the producer still takes records")


@pytest.mark.parametrize("way", ["batch", "single"])
def test_a_transaction_that_was_broken_while_it_was_filled_tells_by_what(
    producer: TransactionalProducer,
    topic: TopicFactory,
    consume_all: Callable[[str], list[Received]],
    way: str,
) -> None:
    """The broker refuses a record as too large while others are still being added: no more are taken, and
    rolling back says why. Nothing of it is visible, and the next transaction works, with half the limit."""
    name = topic("narrow", config={"max.message.bytes": "2000"})
    before = producer.limit

    def add() -> Any:
        if way == "batch":
            return producer.produce_batch(name, [dict(record) for record in SMALL])
        return producer.produce(name, key=b"k", value=b"v", headers=[("h", b"x")])

    producer.begin()
    producer.produce_batch(name, LARGE)
    until_not_queued(add)
    with pytest.raises(RecordTooLarge):
        producer.abort()
    assert producer.limit == before // 2

    producer.begin()
    producer.produce_batch(name, SMALL)
    producer.commit({}, producer_group())
    assert [record.value for record in consume_all(name)] == [b"v"]


def producer_group() -> Any:
    """Return the metadata of a group without members: enough to commit no offsets."""
    from confluent_kafka import Consumer

    return Consumer({"group.id": "none", "bootstrap.servers": ""}).consumer_group_metadata()
