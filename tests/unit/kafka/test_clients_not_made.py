"""A Kafka client that cannot be made in a running worker, for instance while a file of certificates is
replaced.

The call fails with the reason, and a later call may succeed.
"""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from flagstream.chunk import Partition
from flagstream.config.settings import Settings, TopicSettings
from flagstream.errors import SinkUnavailable
from flagstream.kafka.earlier_output import NotTold, earlier_output
from flagstream.kafka.ends import TopicEnds
from flagstream.kafka.rights import prove_rights
from flagstream.kafka.topics import TopicIds, TopicsNotReady, prepare_topics
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.sinks.kafka.other_cluster import OtherClusterSink
from flagstream.sinks.kafka.settings import KafkaSinkSettings


@pytest.fixture
def properties(tmp_path: Path) -> dict[str, Any]:
    """Return properties of a client whose file of certificates does not exist."""
    return {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "ssl",
        "ssl.ca.location": str(tmp_path / "gone.pem"),
    }


def test_the_id_of_a_topic_is_asked_again(properties: dict[str, Any]) -> None:
    """While no client can be made, the question for a topic's id is repeated, and the page says what commits
    wait for.
    """
    with pytest.raises(TopicsNotReady, match=r"ssl\.ca\.location"):
        TopicIds(properties).now("t")


def test_topics_are_examined_again(properties: dict[str, Any]) -> None:
    """A stage that starts waits until a client can be made."""
    with pytest.raises(TopicsNotReady, match=r"ssl\.ca\.location"):
        prepare_topics(properties, TopicSettings(), ["t"])


def test_where_partitions_end_is_not_known_meanwhile(properties: dict[str, Any]) -> None:
    """Without a client the figures of lag become unknown, and the task that asks for them goes on."""
    with capture_logs() as logs:
        assert TopicEnds(properties).ask([Partition("t", 0)]) == {}

    assert "ssl.ca.location" in logs[0]["error"]


def test_an_earlier_name_is_not_looked_for(properties: dict[str, Any]) -> None:
    """The search for an earlier name is only a hint, so its failure keeps nothing from starting."""
    with pytest.raises(NotTold, match=r"ssl\.ca\.location"):
        earlier_output(properties, Settings())


def test_rights_that_cannot_be_asked_for_fail_the_check(properties: dict[str, Any]) -> None:
    """The check ends with the reason and without a traceback."""
    [proof] = prove_rights(properties, {"t": ["READ"]}, ["g"])

    assert proof.outcome == "failed"
    assert "ssl.ca.location" in proof.detail


def test_a_sink_of_another_cluster_gives_the_reason(properties: dict[str, Any]) -> None:
    """A sink of another cluster makes both of its clients in a delivery, which fails with the reason and is
    tried again.
    """
    own = {name: value for name, value in properties.items() if name != "bootstrap.servers"}
    sink = OtherClusterSink(
        KafkaSinkSettings(topic="copies", bootstrap_servers="127.0.0.1:1", properties=own)
    )

    with pytest.raises(SinkUnavailable, match=r"ssl\.ca\.location"):
        sink._topic_limit()
    with pytest.raises(SinkUnavailable, match=r"ssl\.ca\.location"):
        sink._made(1_000_000)


class Fickle:
    """Fails to make a client the first two times."""

    def __init__(self) -> None:
        self.tries = 0

    def __call__(self, properties: dict[str, Any], logger: object) -> Any:
        self.tries += 1
        if self.tries < 3:
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "ssl.ca.location failed"))
        return self

    def init_transactions(self, timeout: float) -> None:
        """Succeed."""


def test_a_producer_is_made_again_until_it_can_be() -> None:
    """The registration of a producer pauses between tries, and reports what it waits for."""
    make = Fickle()
    pauses: list[float] = []
    with capture_logs() as logs:
        TransactionalProducer({"transactional.id": "t"}, stable=False, make=make, sleep=pauses.append).open()

    assert make.tries == 3
    assert len(pauses) >= 2
    assert [entry["event"] for entry in logs] == ["transactions_not_ready"] * 2
    assert "ssl.ca.location failed" in logs[0]["error"]
