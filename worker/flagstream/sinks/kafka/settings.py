"""The settings of a Kafka sink."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Literal

from pydantic import Field

from flagstream import librdkafka
from flagstream.librdkafka import Brokers, Properties
from flagstream.sinks.settings import SinkSettings
from flagstream.units import Count, Seconds, TopicName

_OWN_WORDS = {
    "bootstrap.servers": "set bootstrap_servers of the sink",
    "metadata.broker.list": "set bootstrap_servers of the sink",
    "partitioner": "set partitioner of the sink",
    "message.timeout.ms": "set timeout of the sink",
    "delivery.timeout.ms": "set timeout of the sink",
    "message.max.bytes": "it follows the topic's max.message.bytes",
    "transactional.id": "a transaction cannot span two clusters",
    "transaction.timeout.ms": "a transaction cannot span two clusters",
}


class KafkaSinkSettings(SinkSettings):
    """Settings of a Kafka sink."""

    type: Literal["kafka"] = Field(default="kafka", description="Records of another Kafka topic.")
    topic: TopicName = Field(
        description="The topic to produce to; none of the worker's own, where it is in the same cluster."
    )
    bootstrap_servers: Brokers = Field(
        default="",
        description=(
            "Brokers of another cluster: host:port, separated by commas. Empty: the worker's own cluster, "
            "exactly once; with another cluster it is at least once."
        ),
    )
    properties: Properties = Field(
        default_factory=dict,
        description=(
            "Any property of librdkafka for the producer of another cluster: security.protocol, sasl.*, "
            "ssl.*, compression.type and so on. Passwords and keys are never shown. Needs bootstrap_servers."
        ),
    )
    partitioner: Literal[
        "murmur2_random", "murmur2", "consistent_random", "consistent", "fnv1a_random", "fnv1a", "random"
    ] = Field(
        default="murmur2_random",
        description=(
            "How a userKey chooses the partition, by librdkafka's names. The default agrees with Java "
            "clients; fnv1a agrees with GO Feature Flag's own Kafka exporter."
        ),
    )
    event_ids: bool = Field(
        default=False,
        description=(
            "Give each event an id (output topic, partition and offset) that is the same on every try, so "
            "that a reader recognises an event that comes twice."
        ),
    )
    timeout: Seconds = Field(
        default=30.0,
        ge=1,
        le=900,
        description=(
            "How long another cluster has to acknowledge a window before it is sent again, whole; duplicates "
            "are then possible. The own cluster has enrich.transaction_timeout."
        ),
    )
    max_events: Count = Field(
        default=10_000,
        gt=0,
        le=100_000_000,
        description="A window, here one transaction or one wait for acknowledgements, has at most this many.",
    )
    flush_interval: Seconds = Field(
        default=1.0,
        gt=0,
        description="Records appear at most this long after their first event; readers wait for them.",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.properties and not self.bootstrap_servers:
            yield "properties", "only with bootstrap_servers; the own cluster has kafka.producer_properties"
        for name in _OWN_WORDS.keys() & self.properties.keys():
            yield "properties", f"{name} cannot be handed through: {_OWN_WORDS[name]}"
        others = {name: value for name, value in self.properties.items() if name not in _OWN_WORDS}
        for name, message in (
            *librdkafka.problems(others, None),
            *librdkafka.contradictions(self.properties),
        ):
            yield (
                "properties",
                f"{name} {message}" if message.startswith(("cannot", "is ")) else f"{name}: {message}",
            )


def fingerprint(settings: KafkaSinkSettings) -> str:
    """Return the fingerprint of the settings that shape the records and say where they go. How records are
    partitioned or sent does not count.
    """
    shape = ("kafka", settings.bootstrap_servers, settings.topic, str(settings.event_ids), settings.events)
    return sha256("\0".join(shape).encode()).hexdigest()[:16]
