"""What a broker allows: the times that tests of takeover have to follow."""

from dataclasses import dataclass
from typing import Literal, Self

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

Protocol = Literal["classic", "consumer"]

CLASSIC_SESSION_MIN = "group.min.session.timeout.ms"
CONSUMER_SESSION = "group.consumer.session.timeout.ms"
CONSUMER_HEARTBEAT = "group.consumer.heartbeat.interval.ms"
TRANSACTION_MAX = "transaction.max.timeout.ms"


class BrokerLacks(Exception):
    """The broker lacks what a test needs; the message names it."""


@dataclass(frozen=True)
class BrokerLimits:
    """Limits of one broker as it reports them, all in milliseconds."""

    classic_session_min_ms: int
    consumer_session_ms: int
    consumer_heartbeat_ms: int
    transaction_max_ms: int

    @classmethod
    def of(cls, admin: AdminClient) -> Self:
        """Ask the broker. Raises BrokerLacks with the property's name, KafkaException without an answer."""
        node = min(admin.list_topics(timeout=10).brokers)
        resource = ConfigResource(ResourceType.BROKER, str(node))
        entries = admin.describe_configs([resource], request_timeout=10)[resource].result(timeout=15)

        def milliseconds(name: str) -> int:
            if name not in entries or entries[name].value is None:
                raise BrokerLacks(
                    f"the broker does not know {name}; the tests need Apache Kafka 4.0 or newer"
                )
            return int(entries[name].value)

        return cls(
            classic_session_min_ms=milliseconds(CLASSIC_SESSION_MIN),
            consumer_session_ms=milliseconds(CONSUMER_SESSION),
            consumer_heartbeat_ms=milliseconds(CONSUMER_HEARTBEAT),
            transaction_max_ms=milliseconds(TRANSACTION_MAX),
        )

    def session_ms(self, protocol: Protocol) -> int:
        """How long a member may be silent before its partitions move: the least a classic member may ask for,
        under KIP-848 what the broker sets."""
        return self.classic_session_min_ms if protocol == "classic" else self.consumer_session_ms
