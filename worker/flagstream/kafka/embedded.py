"""The broker that is built into librdkafka, for the demo: a Kafka inside this process, nothing to install.

It is no Kafka to trust. It keeps 5 MiB of each partition and forgets the rest, it fences nobody, aborted
records stay visible, it never tells what a transaction committed (so whoever starts again starts over), and
it does not answer when asked about a topic's settings. Good for a look at the worker, not for a test of its
guarantees.
"""

import logging
from collections.abc import Callable, Sequence
from types import TracebackType

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from flagstream.chunk import Record

ANSWER_SECONDS = 10.0
"""Bound of a call to the broker, which answers within milliseconds."""
MAX_RECORDS = 5_000
_LOGGER = logging.getLogger("librdkafka")


class EmbeddedBroker:
    """A broker, from here until the end of the ``with`` block.

    It lives in the producer that asked for it; that producer also sends the sample records.
    ``bootstrap_servers`` is where other clients find it, in this process or another one.
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
        """Ends the broker; all other clients of it should be closed by now."""
        self._producer.close()

    def create(self, topic: str) -> None:
        """Make sure of a topic, with four partitions, before a consumer looks for it. Asking for it creates
        it.
        """
        self._producer.list_topics(topic, timeout=ANSWER_SECONDS)

    def send(self, topic: str, key: bytes, value: bytes, sent: Callable[[bool], None]) -> None:
        """Produce a record. Does not block; ``sent`` is told, in a later :meth:`poll`, whether the topic has
        it.
        """

        def delivered(error: object, message: Message) -> None:
            sent(error is None)

        self._producer.produce(topic, value, key, on_delivery=delivered)

    def poll(self) -> None:
        """Tell of the records sent so far; to be called now and then. Does not block."""
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until each record is sent, or known not to be."""
        self._producer.flush(ANSWER_SECONDS)


class Follower:
    """Looks at whole topics, from their beginning, without being a member of any group. Calls come from one
    thread.
    """

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
        """The records that have come since the last call. Does not block."""
        messages = self._consumer.consume(MAX_RECORDS, 0.0)
        return [message for message in messages if message.error() is None]

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close()
