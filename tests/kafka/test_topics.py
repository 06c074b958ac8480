"""Topics with limits that no client takes, on a real broker."""

import uuid
from collections.abc import Callable

import pytest

from flagstream.config.settings import KafkaSettings, Settings, TopicSettings
from flagstream.errors import ConfigError, SinkRefused
from flagstream.kafka import topics
from flagstream.kafka.properties import producer_properties
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.sinks.kafka.other_cluster import OtherClusterSink
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.testing import event, fill
from tests.kafka.conftest import TopicFactory
from tests.support.kafka_records import Received


def test_a_topic_that_takes_two_gigabytes_is_produced_to(
    bootstrap: str, topic: TopicFactory, consume_all: Callable[[str], list[Received]]
) -> None:
    """Kafka takes max.message.bytes up to 2147483647, the client 1,000,000,000: the smaller one holds, in
    the worker's own cluster and in another one."""
    name = topic("wide", config={"max.message.bytes": "2147483647"})
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap))

    facts = topics.prepare_topics({"bootstrap.servers": bootstrap}, TopicSettings(), [name])
    producer = TransactionalProducer(producer_properties(settings, uuid.uuid4().hex), stable=False)
    producer.limit = facts.limit(name)
    producer.open()
    producer.close()
    sink = OtherClusterSink(KafkaSinkSettings(topic=name, bootstrap_servers=bootstrap))
    sink.open()
    window = fill(sink, [event(0)])
    sink.deliver(window.manifest, window.payload)
    sink.close()

    assert producer.limit == 1_000_000_000
    assert [record.value for record in consume_all(name)] == [event(0)]


def test_a_topic_that_takes_too_little_is_refused_by_its_name(bootstrap: str, topic: TopicFactory) -> None:
    """A topic below the smallest limit is a mistake in its configuration, not an error of the client."""
    name = topic("tiny", config={"max.message.bytes": "900"})

    with pytest.raises(ConfigError, match=rf"{name} takes records of at most 900 bytes"):
        topics.prepare_topics({"bootstrap.servers": bootstrap}, TopicSettings(), [name])
    with pytest.raises(SinkRefused, match=rf"{name}: takes records of at most 900 bytes"):
        OtherClusterSink(KafkaSinkSettings(topic=name, bootstrap_servers=bootstrap)).open()
