"""Provides fixtures for tests against a real Kafka; `make test` starts it."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient

from tests.support import kafka_records
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import Received, Sent


class TopicFactory(Protocol):
    def __call__(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str: ...


class BrokerFactory(Protocol):
    def __call__(
        self, properties: Mapping[str, str] | None = None, sasl_users: Mapping[str, str] | None = None
    ) -> KafkaBroker: ...


@pytest.fixture(scope="session")
def bootstrap() -> str:
    """Address of the broker that all tests share; a test without one fails."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        pytest.fail(
            "KAFKA_BOOTSTRAP_SERVERS is not set: run `make test`, which starts a Kafka", pytrace=False
        )
    return servers


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> AdminClient:
    """Return an admin client of the shared broker."""
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture(scope="session")
def limits(admin: AdminClient) -> BrokerLimits:
    """The times that the shared broker allows; one that it lacks fails by its name."""
    return BrokerLimits.of(admin)


@pytest.fixture(scope="session")
def topic(admin: AdminClient) -> TopicFactory:
    """Creates topics with names of their own; they stay, so that a failed test can be looked into."""
    return partial(kafka_records.create_topic, admin)


@pytest.fixture(scope="session")
def produce(bootstrap: str) -> Callable[[str, Iterable[Sent]], None]:
    """Produces records to a topic and waits for every acknowledgement."""
    return partial(kafka_records.produce, bootstrap)


@pytest.fixture(scope="session")
def consume_all(bootstrap: str) -> Callable[[str], list[Received]]:
    """Reads a topic from beginning to end, `read_committed`."""
    return partial(kafka_records.consume_all, bootstrap)


@pytest.fixture
def own_broker() -> Iterator[BrokerFactory]:
    """Starts brokers of a test's own, to stop, freeze or configure; these need Java and Maven."""
    with contextlib.ExitStack() as stack:

        def start(
            properties: Mapping[str, str] | None = None, sasl_users: Mapping[str, str] | None = None
        ) -> KafkaBroker:
            return stack.enter_context(KafkaBroker(properties, sasl_users))

        yield start
