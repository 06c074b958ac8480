"""What the guarantees rest on: the broker that the tests run against does what Kafka promises."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.kafka.conftest import BrokerFactory, TopicFactory
from tests.support import kafka_limits
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_process import answers
from tests.support.kafka_records import Received, Sent, create_topic

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])
ProduceRecords = Callable[[str, Iterable[Sent]], None]
ConsumeAll = Callable[[str], list[Received]]


@contextmanager
def member(bootstrap: str, group: str, protocol: str, topic: str) -> Iterator[Consumer]:
    """A group member that has got its partitions."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    # Closed whatever happens: a consumer that is left to the garbage collector can hang the whole run.
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + 30
        while not consumer.assignment():
            assert time.monotonic() < deadline, "no assignment within 30 s"
            assert consumer.poll(0.1) is None, "the topics of these tests are empty"
        yield consumer
    finally:
        consumer.close()


def transactional(bootstrap: str, name: str) -> Producer:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": name, "transaction.timeout.ms": 10_000}
    )
    producer.init_transactions(30)
    return producer


def test_records_come_back_as_they_were_sent(
    topic: TopicFactory, produce: ProduceRecords, consume_all: ConsumeAll
) -> None:
    """Key, value, headers and time survive; a tombstone is a record too."""
    name = topic("round-trip", partitions=2)
    produce(name, [Sent(b"k", b"v", [("h", b"1")], 0, 1_700_000_000_000), Sent(b"k", None, None, 1)])

    first, second = consume_all(name)

    assert first == Received(0, 0, b"k", b"v", [("h", b"1")], 1_700_000_000_000)
    assert second[:5] == (1, 0, b"k", None, [])


def test_an_aborted_transaction_is_never_seen(
    topic: TopicFactory, bootstrap: str, consume_all: ConsumeAll
) -> None:
    """`read_committed` passes over what was aborted and reaches the end after the markers."""
    name = topic("aborted")
    producer = transactional(bootstrap, name)
    for value, end in ((b"no", producer.abort_transaction), (b"yes", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(name, value)
        producer.flush(10)
        end(30)

    assert [record.value for record in consume_all(name)] == [b"yes"]


@PROTOCOLS
def test_a_transaction_carries_the_offsets(topic: TopicFactory, bootstrap: str, protocol: str) -> None:
    """Offsets sent with a transaction are the group's once it commits, under both group protocols."""
    name = topic("carried")
    with member(bootstrap, f"{name}-group", protocol, name) as consumer:
        producer = transactional(bootstrap, name)
        producer.begin_transaction()
        producer.produce(name, b"v")
        position = [TopicPartition(name, 0, 42)]
        producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)

        assert consumer.committed([TopicPartition(name, 0)], timeout=30)[0].offset == 42


@PROTOCOLS
def test_a_successor_reads_the_metadata_of_a_commit(
    topic: TopicFactory, bootstrap: str, protocol: str
) -> None:
    """What one member writes beside an offset (a plan) the next one finds, under both group protocols."""
    name = topic("plan")
    plan = '{"v":1,"end":57}'
    with member(bootstrap, f"{name}-group", protocol, name) as consumer:
        consumer.commit(offsets=[TopicPartition(name, 0, 10, plan)], asynchronous=False)

    with member(bootstrap, f"{name}-group", protocol, name) as successor:
        [found] = successor.committed([TopicPartition(name, 0)], timeout=30)

    assert (found.offset, found.metadata) == (10, plan)


def test_limits_are_those_of_the_broker(limits: BrokerLimits) -> None:
    """The times that tests of takeover follow are read from the broker, whichever it is."""
    assert 0 < limits.session_ms("classic") <= 60_000
    assert 0 < limits.consumer_heartbeat_ms < limits.session_ms("consumer")
    assert limits.transaction_max_ms >= 10_000


def test_what_a_broker_lacks_fails_by_name(admin: AdminClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A property that the broker does not know is named in the failure."""
    monkeypatch.setattr(kafka_limits, "CONSUMER_SESSION", "group.imagined.timeout.ms")

    with pytest.raises(kafka_limits.BrokerLacks, match=r"group\.imagined\.timeout\.ms"):
        BrokerLimits.of(admin)


def test_an_own_broker_keeps_its_data_when_it_restarts(own_broker: BrokerFactory) -> None:
    """Stopped, it refuses connections; started again, it is at the same address with the same topics."""
    broker = own_broker()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    name = create_topic(admin, "kept")
    broker.stop()
    stopped = answers(broker.bootstrap_servers, timeout=1)
    broker.start()

    assert not stopped
    assert name in AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=30).topics


def test_a_frozen_broker_answers_again_when_thawed(own_broker: BrokerFactory) -> None:
    """Frozen, it accepts connections and says nothing; thawed, it goes on."""
    broker = own_broker()
    broker.freeze()
    frozen = answers(broker.bootstrap_servers, timeout=1)
    broker.thaw()

    assert not frozen
    assert answers(broker.bootstrap_servers, timeout=10)


def test_a_wrong_password_is_refused(own_broker: BrokerFactory) -> None:
    """The SASL listener lets the known user in and names the failure to anyone else."""
    broker = own_broker(sasl_users={"alice": "right"})

    def failure(password: str) -> int | None:
        refusals: list[KafkaError] = []
        settings: dict[str, Any] = {
            "bootstrap.servers": broker.sasl_bootstrap_servers,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": password,
            "error_cb": refusals.append,
            "log_level": 0,
        }
        client = AdminClient(settings)
        try:
            client.list_topics(timeout=5)
        except KafkaException:
            client.poll(1)
            return next(error.code() for error in refusals if error.code() != KafkaError._ALL_BROKERS_DOWN)
        return None

    assert failure("right") is None
    assert failure("wrong") == KafkaError._AUTHENTICATION


def test_the_command_gets_a_broker_and_its_exit_code_is_kept(bootstrap: str) -> None:
    """`run` hands the address to the command and exits as the command did."""
    program = "import os, sys; print(os.environ['KAFKA_BOOTSTRAP_SERVERS']); sys.exit(7)"
    command = [sys.executable, "-m", "tests.support.kafka_broker", "run", "--", sys.executable, "-c", program]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout.strip()) == (7, bootstrap)
