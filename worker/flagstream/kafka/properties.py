"""The complete librdkafka configuration of each client, and the names that the worker has in the cluster.

There are three layers: the worker's defaults, the properties that the user sets, and the properties that
exactly-once depends on, which always win.
"""

import secrets
from collections.abc import Iterator
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Producer
from pydantic import SecretStr

from flagstream.config.settings import Settings
from flagstream.librdkafka import Properties, plain
from flagstream.librdkafka_text import words
from flagstream.memory import MemoryShare
from flagstream.sinks.kafka.settings import KafkaSinkSettings

Configuration = dict[str, object]

# After half of it the outcome of a commit counts as unknown. With librdkafka's own 60 s a partition would
# wait that long on a connection that is silently dead.
_SOCKET_TIMEOUT_MS = 10_000

_LARGEST_MESSAGE = 1_000_000_000
"""The most that librdkafka takes for message.max.bytes."""
_SMALL_RECORD = 256
"""Bytes that the smallest record takes in librdkafka's producer."""

# librdkafka's own default. It must not be below the session time-out.
_MAX_POLL_INTERVAL_MS = 300_000


def enrich_group(settings: Settings) -> str:
    """Return the name of the enrich stage's consumer group."""
    return f"{settings.name}.enrich"


def sink_group(settings: Settings, sink: str) -> str:
    """Return the name of a sink's consumer group."""
    return f"{settings.name}.sink.{sink}"


def process_instance(settings: Settings) -> str:
    """Return the configured instance, or a random one: two live processes of one name fence each other."""
    return settings.kafka.instance or secrets.token_hex(8)


def transactional_id(settings: Settings, stage: str, instance: str) -> str:
    """Return the transactional.id of a stage (``enrich``, ``sink.<sink>``) in the process ``instance``."""
    return f"{settings.name}.{stage}.{instance}"


def static_member(settings: Settings, stage: str) -> str | None:
    """Return the group.instance.id of a stage (``enrich``, ``sink.<sink>``); None without static
    membership.
    """
    if not settings.kafka.static_membership:
        return None
    return f"{settings.name}.{stage}.{settings.kafka.instance}"


def consumer_properties(
    settings: Settings, group: str, instance: str | None, memory: MemoryShare | None = None
) -> Configuration:
    """Return all properties of a consumer of ``group``. ``instance`` is the result of ``static_member``,
    ``memory`` what its stage may hold (by default the whole budget).
    """
    kafka, memory = settings.kafka, memory or MemoryShare(settings.export.memory_budget)
    session_ms = _ms(kafka.session_timeout)
    defaults: Configuration = _defaults(settings) | {
        "max.poll.interval.ms": max(_MAX_POLL_INTERVAL_MS, session_ms),
        # All that the consumer holds of records that nobody has asked for yet. It takes twice its size.
        "queued.max.messages.kbytes": memory.queued // 1024,
        # librdkafka checks that before a fetch, and unpacks each answer whole: 1 MiB of events that repeat
        # each other becomes 100 MiB. So little is fetched from each broker at a time. The limit of one
        # partition is the same, because it may be all that a broker has.
        "fetch.max.bytes": memory.response,
        "max.partition.fetch.bytes": memory.response,
        # The pause before a full queue is checked again. librdkafka's own 1 s starves the reader of a small
        # queue.
        "fetch.queue.backoff.ms": 20,
    }
    fixed: Configuration = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": group,
        "group.protocol": kafka.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
    }
    if kafka.group_protocol == "classic":
        fixed |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": session_ms}
        defaults["heartbeat.interval.ms"] = min(
            3_000, session_ms // 3
        )  # librdkafka's own is 3 s, come what may
    if instance is not None:
        fixed["group.instance.id"] = instance
    made = defaults | plain(kafka.properties) | plain(kafka.consumer_properties) | fixed
    with suppress(ValueError):  # not a number: librdkafka reports that
        # A consumer uses it for nothing else: librdkafka wants fetch.max.bytes to be at least as large.
        made["message.max.bytes"] = min(int(str(made["fetch.max.bytes"])), _LARGEST_MESSAGE)
    return made


def producer_properties(
    settings: Settings, transactional_id: str, memory: MemoryShare | None = None
) -> Configuration:
    """Return all properties of the transactional producer of ``transactional_id``. ``memory`` is what its
    stage may hold (by default two transactions).
    """
    kafka, enrich = settings.kafka, settings.enrich
    transaction_ms = _ms(enrich.transaction_timeout)
    defaults: Configuration = _defaults(settings) | {
        # librdkafka refuses a socket time-out above the transaction's.
        "socket.timeout.ms": min(_SOCKET_TIMEOUT_MS, transaction_ms),
        "linger.ms": 5,
        # The next transaction is filled while the last one commits; dead letters and headers come on top.
        "queue.buffering.max.messages": max(100_000, 2 * enrich.max_transaction_events),
        "queue.buffering.max.kbytes": max(64 * 1024, 2 * enrich.max_transaction_bytes // 1024),
    }
    if memory is not None:  # then a transaction may not fit, and the stage waits for acknowledgements
        bounds = {
            "queue.buffering.max.messages": memory.produced // _SMALL_RECORD,
            "queue.buffering.max.kbytes": memory.produced // 1024,
        }
        defaults |= {name: min(bound, int(str(defaults[name]))) for name, bound in bounds.items()}
    fixed: Configuration = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": transaction_ms,
        "enable.idempotence": True,
        "partitioner": enrich.partitioner,
    }
    return defaults | plain(kafka.properties) | plain(kafka.producer_properties) | fixed


def admin_properties(settings: Settings) -> Configuration:
    """Return all properties of a client that looks at the cluster and creates topics."""
    fixed: Configuration = {"bootstrap.servers": settings.kafka.bootstrap_servers}
    return _defaults(settings) | plain(settings.kafka.properties) | fixed


def check_properties(settings: Settings) -> list[str]:
    """Return why librdkafka refuses the properties as a whole, one line for each reason; no line if it takes
    them.

    A client of each kind is made and closed, without the brokers' addresses, so that nothing is connected to.
    This finds what no single property shows: a missing password, an unreadable certificate, a contradiction.
    """
    reasons: dict[str, list[str]] = {}
    for clients, make in (("consumers", _make_consumer), ("producers", _make_producer)):
        try:
            make(settings)
        except KafkaException as error:
            reasons.setdefault(_reason(settings, error), []).append(clients)
    return [
        f"kafka.properties: librdkafka cannot make {' and '.join(clients)}: {why}"
        for why, clients in reasons.items()
    ] + list(_sink_reasons(settings))


def _sink_reasons(settings: Settings) -> Iterator[str]:
    """Yield the same for the producers to other clusters."""
    for name, sink in settings.sinks.items():
        if isinstance(sink, KafkaSinkSettings) and sink.bootstrap_servers:
            try:
                Producer(_offline({**plain(sink.properties), "enable.idempotence": True}))
            except KafkaException as error:
                reason = _reason(settings, error, sink.properties)
                yield f"sinks.{name}.properties: librdkafka cannot make its producer: {reason}"


def _make_consumer(settings: Settings) -> None:
    consumer = Consumer(_offline(consumer_properties(settings, enrich_group(settings), None)))
    consumer.close()


def _make_producer(settings: Settings) -> None:
    Producer(_offline(producer_properties(settings, transactional_id(settings, "enrich", "check"))))


def _defaults(settings: Settings) -> Configuration:
    return {
        "client.id": settings.name,
        "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
        # Only what is critical: every lost connection would be a line, and the error callback reports it too.
        "log_level": 2,
    }


def _offline(properties: Configuration) -> Configuration:
    return {name: value for name, value in properties.items() if name != "bootstrap.servers"} | {
        "log_level": 0
    }


def _reason(settings: Settings, error: KafkaException, *more: Properties) -> str:
    reason = str(words(error.args[0])).strip()
    kafka = settings.kafka
    for properties in (kafka.properties, kafka.consumer_properties, kafka.producer_properties, *more):
        for name, value in properties.items():
            if isinstance(value, SecretStr) and value.get_secret_value():
                reason = reason.replace(value.get_secret_value(), str(value))
            elif name.endswith(".location") and name in reason and (why := _unreadable(str(value))):
                return f"{name}: {value} cannot be read: {why}"
    return reason.partition(": ")[2] or reason


def _unreadable(path: str) -> str | None:
    """Return why no file can be read at ``path``, which OpenSSL does not report; None if one can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror
    return None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
