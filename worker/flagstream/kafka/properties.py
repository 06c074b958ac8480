"""The complete librdkafka configuration of each client, and the names that the worker has in the cluster.

Three layers: our defaults, what the user hands through, and what exactly-once depends on, which always wins.
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

# Half of it is what a commit may take before its outcome counts as unknown. librdkafka's own 60 s would leave
# a partition waiting that long on a connection that is dead without saying so.
_SOCKET_TIMEOUT_MS = 10_000

_LARGEST_MESSAGE = 1_000_000_000
"""More librdkafka does not take for message.max.bytes."""
_SMALL_RECORD = 256
"""Bytes that librdkafka's producer takes for the smallest record."""

# librdkafka's own default; it has to be at least the session's.
_MAX_POLL_INTERVAL_MS = 300_000


def enrich_group(settings: Settings) -> str:
    """The consumer group of the enrich stage."""
    return f"{settings.name}.enrich"


def sink_group(settings: Settings, sink: str) -> str:
    """The consumer group of a sink."""
    return f"{settings.name}.sink.{sink}"


def process_instance(settings: Settings) -> str:
    """The configured instance, else a random one: two live processes of one name fence each other."""
    return settings.kafka.instance or secrets.token_hex(8)


def transactional_id(settings: Settings, stage: str, instance: str) -> str:
    """The transactional.id of a stage (``enrich``, ``sink.<sink>``) in the process called ``instance``."""
    return f"{settings.name}.{stage}.{instance}"


def static_member(settings: Settings, stage: str) -> str | None:
    """The group.instance.id of a stage (``enrich``, ``sink.<sink>``); None without static membership."""
    if not settings.kafka.static_membership:
        return None
    return f"{settings.name}.{stage}.{settings.kafka.instance}"


def consumer_properties(
    settings: Settings, group: str, instance: str | None, memory: MemoryShare | None = None
) -> Configuration:
    """Everything for a consumer of ``group``; ``instance`` is what ``static_member`` says, ``memory`` what
    its stage may hold (by default all of the budget).
    """
    kafka, memory = settings.kafka, memory or MemoryShare(settings.export.memory_budget)
    session_ms = _ms(kafka.session_timeout)
    defaults: Configuration = _defaults(settings) | {
        "max.poll.interval.ms": max(_MAX_POLL_INTERVAL_MS, session_ms),
        # All that it holds of records not yet asked for. Each takes as much again beside its bytes.
        "queued.max.messages.kbytes": memory.queued // 1024,
        # That is looked at before a fetch, and what comes is unpacked whole: 1 MiB of events that repeat each
        # other becomes 100 MiB. So little is fetched at a time, from each broker; of one partition no less,
        # for it may be all that a broker has.
        "fetch.max.bytes": memory.response,
        "max.partition.fetch.bytes": memory.response,
        # When a full queue is looked at again. librdkafka's own 1 s starves the reader of a small queue.
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
    with suppress(ValueError):  # no number: librdkafka says so
        # For a consumer nothing but a bound of fetch.max.bytes, which librdkafka wants to be the larger one.
        made["message.max.bytes"] = min(int(str(made["fetch.max.bytes"])), _LARGEST_MESSAGE)
    return made


def producer_properties(
    settings: Settings, transactional_id: str, memory: MemoryShare | None = None
) -> Configuration:
    """Everything for the transactional producer of ``transactional_id``; ``memory`` is what its stage may
    hold (by default two transactions).
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
    if memory is not None:  # then a transaction may not fit; what brokers have not acknowledged is waited for
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
    """Everything for a client that looks at the cluster and creates topics."""
    fixed: Configuration = {"bootstrap.servers": settings.kafka.bootstrap_servers}
    return _defaults(settings) | plain(settings.kafka.properties) | fixed


def check_properties(settings: Settings) -> list[str]:
    """What librdkafka has against the properties as a whole, a line for each reason; none if all is well.

    Makes and closes a client of each kind, without the brokers' addresses, so nothing is connected to. It
    finds what no single property shows: a missing password, an unreadable certificate, a contradiction.
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
    """The same of the producers for other clusters."""
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
        # Only what is critical: every lost connection is a line, and the error callback tells it too.
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
    """Why no file can be read at ``path``, of which OpenSSL says nothing; None if one can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror
    return None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
