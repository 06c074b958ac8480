"""Events as single records of another topic, with GO Feature Flag's key and value.

In the worker's own cluster (:class:`TopicSink`) records and offset are one transaction: exactly once. In
another cluster (``bootstrap_servers``, :mod:`flagstream.kafka.sink`) no transaction spans both: at least
once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, Field

from flagstream import librdkafka
from flagstream.chunk import Partition, Record
from flagstream.formats.ids import with_ids
from flagstream.librdkafka import Brokers, Properties
from flagstream.sinks.protocol import Preview, Proof, Reject, Transaction
from flagstream.sinks.settings import SinkSettings
from flagstream.units import Count, Seconds, shown, wrong
from flagstream.window import Manifest

ENVELOPE = 512
"""Bytes kept free for the batch around a record and for its framing: 61 and some 20 in Kafka's format v2."""
RECORD_OVERHEAD = 200
"""Bytes of memory that Python takes for an encoded record beside its key and value, *measured*: 186."""
DEFAULT_LIMIT = 1_000_000
"""Bytes of the largest record, until the topic's own limit is known; a topic takes 1,048,588 by default."""

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


def _topic(name: str) -> str:
    # Kafka's own rule
    if not re.fullmatch(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", name):
        raise wrong(f'{shown(name)} is no topic name; use up to 249 letters, digits, ".", "_" and "-"')
    return name


class KafkaSinkSettings(SinkSettings):
    """Settings of a Kafka sink."""

    type: Literal["kafka"] = Field(default="kafka", description="Records of another Kafka topic.")
    topic: Annotated[str, AfterValidator(_topic)] = Field(
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
            "that a reader that gets an event twice can tell."
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


@dataclass(frozen=True, slots=True)
class Produce:
    """A record to produce. ``offset`` is that of its event in the output topic."""

    key: bytes
    value: bytes
    offset: int = field(default=0, compare=False)


class Records(tuple[Produce, ...]):
    """A window's records. ``taken`` are the indexes of those that another cluster has acknowledged: this
    process does not send them again.
    """

    taken: set[int]

    def __new__(cls, records: Iterable[Produce]) -> "Records":
        made = super().__new__(cls, records)
        made.taken = set()
        return made


class _Keyed(msgspec.Struct, gc=False):
    userKey: str


_decode = msgspec.json.Decoder(_Keyed).decode


class RecordEncoder:
    """One window as records; a :class:`~flagstream.sinks.protocol.WindowEncoder`.

    Rejects what has no ``userKey``, what is larger than ``limit``, the largest record of the topic, and what
    is in ``refused``: keys and values that the topic is known to refuse, with the reason.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        event_ids: bool,
        limit: int,
        refused: Mapping[tuple[bytes, bytes], str] = MappingProxyType({}),
    ) -> None:
        self._partition = partition
        self._event_ids = event_ids
        self._room = limit - ENVELOPE
        self._refused = refused
        self._records: list[Produce] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size + RECORD_OVERHEAD * len(self._records)

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        rejects: list[Reject] = []
        sent = with_ids(self._partition, values, records) if self._event_ids else values
        for index, value in enumerate(sent):
            try:
                key = _decode(value).userKey.encode()
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(index, "not_an_event", str(error)))
                continue
            size = len(key) + len(value)
            if size > self._room:
                text = f"{size} bytes of key and value; the topic takes {self._room}"
                rejects.append(Reject(index, "too_large", text))
                continue
            if self._refused and (why := self._refused.get((key, value))) is not None:
                rejects.append(Reject(index, "refused_by_topic", why))
                continue
            self._records.append(Produce(key, value, records[index].offset() or 0))
            self.size += size
        return rejects

    def finish(self, manifest: Manifest) -> Records:
        return Records(self._records)


class TopicSink:
    """A topic of the worker's own cluster: a
    :class:`~flagstream.sinks.protocol.ConfiguredTransactionalSink`.
    """

    unit = "records"

    def __init__(self, settings: KafkaSinkSettings) -> None:
        self.topic = settings.topic
        self.partitioner: str = settings.partitioner
        self.limit = DEFAULT_LIMIT
        self._refused: dict[Partition, tuple[int, dict[tuple[bytes, bytes], str]]] = {}
        self.fingerprint = fingerprint(settings)
        self._event_ids = settings.event_ids

    def begin(self, partition: Partition, start: int) -> RecordEncoder:
        _, refused = self._refused.get(partition, (0, {}))
        return RecordEncoder(partition, event_ids=self._event_ids, limit=self.limit, refused=refused)

    def refuse(self, partition: Partition, until: int, refused: Mapping[tuple[bytes, bytes], str]) -> None:
        """Reject these keys and values, with the reason, beside those that are known already, until the
        offset ``until`` of the partition is committed. Called by the engine.
        """
        last, known = self._refused.get(partition, (0, {}))
        self._refused[partition] = (max(last, until), {**known, **refused})

    def committed(self, partition: Partition, offset: int) -> None:
        """Called by the engine: what was refused before ``offset`` does not come again."""
        if partition in self._refused and offset >= self._refused[partition][0]:
            del self._refused[partition]

    def deliver_in(self, transaction: Transaction, manifest: Manifest, payload: Sequence[Produce]) -> None:
        for record in payload:
            transaction.produce(self.topic, key=record.key, value=record.value, headers=[])

    def probe(self) -> Iterator[Proof]:
        why = "a worker writes in the transaction that commits offsets"
        yield Proof("write", "unproved", why)

    def preview(self, manifest: Manifest, payload: Sequence[Produce]) -> Preview:
        return preview(self.topic, payload)


def preview(topic: str, payload: Sequence[Produce]) -> Preview:
    """The topic, and the first record as ``key: value``."""
    first = payload[0]
    return Preview((topic,), f"{first.key.decode()}: {first.value.decode()}")


def fingerprint(settings: KafkaSinkSettings) -> str:
    """Of what shapes the records and where they go; not of how they are shared out or sent."""
    shape = ("kafka", settings.bootstrap_servers, settings.topic, str(settings.event_ids), settings.events)
    return sha256("\0".join(shape).encode()).hexdigest()[:16]
