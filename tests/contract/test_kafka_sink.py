"""The Kafka sink passes the contracts: the own cluster on a recorded transaction, another on a Kafka."""

import os
from collections.abc import Sequence

import pytest
from confluent_kafka.admin import AdminClient

from flagstream.sinks.kafka.other_cluster import OtherClusterSink
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.sinks.protocol import ConfiguredTransactionalSink, TransactionalSink
from flagstream.testing import PARTITION, Produced, SinkContract, TransactionalSinkContract
from tests.support.kafka_records import consume_all, create_topic

UNACCEPTABLE = (b"", b"text", b"[]", b'{"kind":"feature"}', b'{"userKey":1}')


class TestOwnCluster(TransactionalSinkContract):
    """In the worker's own cluster the sink is exactly once."""

    sink_class = TopicSink
    unacceptable = UNACCEPTABLE

    def settings(self) -> KafkaSinkSettings:
        return KafkaSinkSettings(topic="copies")

    def settings_of_another_shape(self) -> KafkaSinkSettings:
        return KafkaSinkSettings(topic="copies", event_ids=True)

    def read_back(self, produced: Sequence[Produced]) -> list[bytes]:
        return [record.value for record in produced if record.value is not None]


class TestOtherCluster(SinkContract):
    """In another cluster the sink is at least once, on a real Kafka."""

    sink_class = OtherClusterSink
    unacceptable = UNACCEPTABLE

    @pytest.fixture(autouse=True)
    def cluster(self) -> None:
        """Create a topic of each test's own, of three partitions."""
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if not servers:
            pytest.fail("KAFKA_BOOTSTRAP_SERVERS is not set: run `make test`", pytrace=False)
        self.servers = servers
        self.topic = create_topic(AdminClient({"bootstrap.servers": servers}), "contract", 3)

    def settings(self) -> KafkaSinkSettings:
        return KafkaSinkSettings(topic=self.topic, bootstrap_servers=self.servers)

    def settings_of_another_shape(self) -> KafkaSinkSettings:
        return KafkaSinkSettings(topic=self.topic, bootstrap_servers=self.servers, event_ids=True)

    def refusing_settings(self) -> KafkaSinkSettings:
        return KafkaSinkSettings(topic="there-is-no-such-topic", bootstrap_servers=self.servers)

    def read_back(self) -> list[bytes]:
        return [record.value or b"" for record in consume_all(self.servers, self.topic)]

    def test_it_cannot_know_what_it_holds(self) -> None:
        """Which ranges a topic holds would take reading all of it."""
        assert self.opened().holdings(PARTITION, 0) is None


def test_which_shape_is_which() -> None:
    """The engine distinguishes them by what they can do."""
    own: object = TopicSink(KafkaSinkSettings(topic="t"))
    other: object = OtherClusterSink(KafkaSinkSettings(topic="t", bootstrap_servers="b:9092"))
    assert isinstance(own, TransactionalSink)
    assert isinstance(own, ConfiguredTransactionalSink)
    assert not isinstance(other, TransactionalSink)
