"""The broker that is built into librdkafka, for the demo: a Kafka inside this process, nothing to install.

It has none of Kafka's guarantees. It keeps 5 MiB of each partition and forgets the rest, it fences nobody,
aborted records stay visible, it never reports what a transaction committed (so a worker that starts again
starts from the beginning), and it does not answer questions about a topic's settings. Use it for a look at
the worker, not to test the worker's guarantees.
"""

import logging
from collections.abc import Callable, Sequence
from types import TracebackType

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from flagstream.chunk import Record

ANSWER_SECONDS = 10.0
"""Bound of one call to the broker, which answers within milliseconds."""
MAX_RECORDS = 5_000
_LOGGER = logging.getLogger("librdkafka")


class EmbeddedBroker:
    """A broker that runs until the end of the ``with`` block.

    It lives in the producer that asked for it, which also sends the sample records. Other clients, in this
    process or another one, find it at ``bootstrap_servers``.
    """

    def __init__(self) -> None:
        self._producer = Producer(
            {
                "test.mock.num.brokers": 1,
                "client.id": "flagstream-demo",
                "linger.ms": 5,
                # As applications produce: the key decides the partition, the way Java clients do it.
                "partitioner": "murmur2_random",
            },
            logger=_LOGGER,
        )
        brokers = self._producer.list_topics(timeout=ANSWER_SECONDS).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def __enter__(self) -> "EmbeddedBroker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the broker. All other clients of it should be closed before."""
        self._producer.close()

    def create(self, topic: str) -> None:
        """Create a topic with four partitions, before a consumer looks for it: a question about it creates
        it.
        """
        self._producer.list_topics(topic, timeout=ANSWER_SECONDS)

    def send(self, topic: str, key: bytes, value: bytes, sent: Callable[[bool], None]) -> None:
        """Produce a record. Does not block: a later :meth:`poll` calls ``sent`` with whether the topic has
        it.
        """

        def delivered(error: object, message: Message) -> None:
            sent(error is None)

        self._producer.produce(topic, value, key, on_delivery=delivered)

    def poll(self) -> None:
        """Report the records sent so far. To be called now and then; does not block."""
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until each record is sent, or has failed."""
        self._producer.flush(ANSWER_SECONDS)


class Follower:
    """Reads whole topics from their beginning, as a member of no group. One thread makes all calls."""

    def __init__(self, bootstrap_servers: str, topics: Sequence[str]) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "client.id": "flagstream-demo-view",
                "group.id": "flagstream-demo-view",  # librdkafka wants a name; nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            },
            logger=_LOGGER,
        )
        known = self._consumer.list_topics(timeout=ANSWER_SECONDS).topics
        self._consumer.assign(
            [
                TopicPartition(topic, index, OFFSET_BEGINNING)
                for topic in topics
                for index in known[topic].partitions
            ]
        )

    def take(self) -> list[Record]:
        """Return the records that have come since the last call. Does not block."""
        messages = self._consumer.consume(MAX_RECORDS, 0.0)
        return [message for message in messages if message.error() is None]

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
