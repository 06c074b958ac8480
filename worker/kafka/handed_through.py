"""librdkafka properties that users hand through: which are secret, which are ours, and which do not exist."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from worker.units import Written, shown, wrong

_SECRET = re.compile(r"password|passphrase|secret|private\.key|key\.pem|oauthbearer\.config|jaas")

_OURS = "the worker sets it itself: exactly-once depends on it"
_CALLBACK = "it takes a function, which no file can hold"
RESERVED: Mapping[str, str] = {
    "enable.auto.commit": "the worker commits an offset only after what it stands for is done",
    "auto.commit.enable": "the worker commits an offset only after what it stands for is done",
    "auto.commit.interval.ms": "the worker commits an offset only after what it stands for is done",
    "enable.auto.offset.store": "the worker commits an offset only after what it stands for is done",
    "isolation.level": "both stages read committed records only, or a woken zombie's records are seen twice",
    "auto.offset.reset": "a lost offset must not skip records; set enrich.start or sinks.<name>.start",
    "group.id": "groups are <name>.enrich and <name>.sink.<sink>; set name",
    "group.instance.id": "set kafka.static_membership and kafka.instance",
    "group.protocol": "set kafka.group_protocol",
    "partition.assignment.strategy": "the worker relies on cooperative-sticky rebalancing",
    "session.timeout.ms": "set kafka.session_timeout",
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "transactional.id": "it is <name>.<stage>.<instance>; set name and kafka.instance",
    "transaction.timeout.ms": "set enrich.transaction_timeout",
    "enable.idempotence": _OURS,
    "enable.gapless.guarantee": _OURS,
    "acks": _OURS,
    "request.required.acks": _OURS,
    "partitioner": "set enrich.partitioner",
    "enable.partition.eof": "the worker expects records only",
    "plugin.library.paths": "it would load foreign code into the worker",
    "default.topic.config": "set the properties of topics directly",
    **dict.fromkeys(
        (
            "on_delivery",
            "delivery.report.only.error",
            "dr_cb",
            "dr_msg_cb",
            "error_cb",
            "throttle_cb",
            "stats_cb",
            "log_cb",
            "logger",
            "rebalance_cb",
            "on_commit",
            "offset_commit_cb",
            "oauth_cb",
            "oauthbearer_token_refresh_cb",
        ),
        _CALLBACK,
    ),
}
"""Properties that users cannot set, each with the reason or the key to use instead."""

RESERVED_UNDER_CONSUMER_PROTOCOL: Mapping[str, str] = {
    "heartbeat.interval.ms": 'with kafka.group_protocol = "consumer" the broker decides it',
    "group.protocol.type": 'with kafka.group_protocol = "consumer" the broker decides it',
}

# Only to suggest a name for a misspelt one: librdkafka itself decides what exists, but it lists nothing.
COMMON = (
    *RESERVED,
    *(f"sasl.{name}" for name in ("mechanism", "mechanisms", "username", "password")),
    *(f"sasl.kerberos.{name}" for name in ("service.name", "principal", "keytab", "kinit.cmd")),
    *(
        f"sasl.oauthbearer.{name}"
        for name in ("method", "client.id", "client.secret", "scope", "extensions", "token.endpoint.url")
    ),
    "sasl.oauthbearer.config",
    *(f"ssl.{name}.location" for name in ("ca", "certificate", "key", "keystore", "crl")),
    *(f"ssl.{name}.pem" for name in ("ca", "certificate", "key")),
    *(f"ssl.{name}.password" for name in ("key", "keystore")),
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    *("security.protocol", "client.id", "client.rack", "client.dns.lookup", "debug", "log_level"),
    *("socket.timeout.ms", "socket.keepalive.enable", "socket.connection.setup.timeout.ms"),
    *("connections.max.idle.ms", "reconnect.backoff.ms", "reconnect.backoff.max.ms", "retry.backoff.ms"),
    *("broker.address.family", "broker.address.ttl", "metadata.max.age.ms", "statistics.interval.ms"),
    *(
        "message.max.bytes",
        "receive.message.max.bytes",
        "max.in.flight",
        "topic.metadata.refresh.interval.ms",
    ),
    *("heartbeat.interval.ms", "max.poll.interval.ms", "queued.min.messages", "queued.max.messages.kbytes"),
    *("fetch.wait.max.ms", "fetch.min.bytes", "fetch.max.bytes", "fetch.message.max.bytes", "check.crcs"),
    *("max.partition.fetch.bytes", "fetch.error.backoff.ms", "fetch.queue.backoff.ms"),
    *("linger.ms", "queue.buffering.max.messages", "queue.buffering.max.kbytes", "queue.buffering.max.ms"),
    *("batch.num.messages", "batch.size", "compression.type", "compression.codec", "compression.level"),
    *("retries", "message.timeout.ms", "delivery.timeout.ms", "request.timeout.ms", "enable.metrics.push"),
)

_SENTINEL = "flagstream.no.such.property"


def is_secret(name: str) -> bool:
    """Whether a property's value must never be shown."""
    return _SECRET.search(name) is not None


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float | SecretStr):
        raise wrong("a property is a text, a number or true or false")
    return value


def _hide(properties: dict[str, "PropertyValue"]) -> dict[str, "PropertyValue"]:
    return {
        name: SecretStr(str(value)) if is_secret(name) and not isinstance(value, SecretStr) else value
        for name, value in properties.items()
    }


PropertyValue = Annotated[bool | int | float | str | SecretStr, BeforeValidator(_scalar)]
Properties = Annotated[
    dict[str, PropertyValue],
    AfterValidator(_hide),
    Written("table of properties", lambda properties: "{}" if not properties else shown(properties)),
]
"""Properties by librdkafka's names. Values of secret ones are kept as ``SecretStr``."""


def plain(properties: Properties) -> dict[str, bool | int | float | str]:
    """The properties with their secrets uncovered, for librdkafka only."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in properties.items()
    }


def problems(properties: Properties, group_protocol: str | None) -> Iterator[tuple[str, str]]:
    """The properties that cannot be handed through: name, and why (never the value).

    ``group_protocol`` is None where it could not be read; what depends on it is not judged then.
    """
    reserved = dict(RESERVED)
    if group_protocol == "consumer":
        reserved |= RESERVED_UNDER_CONSUMER_PROTOCOL
    for name, value in plain(properties).items():
        if name in reserved:
            yield name, f"cannot be handed through: {reserved[name]}"
        elif reason := _refused_by_librdkafka(name, value):
            yield name, reason


def _refused_by_librdkafka(name: str, value: bool | int | float | str) -> str | None:
    """What librdkafka has against one property, without making a client.

    librdkafka takes properties one by one, in order, and begins nothing before it has taken all. The one that
    does not exist comes last, so there is always an error, about this property or about that one.
    """
    from confluent_kafka import KafkaException, Producer

    try:
        Producer({name: value, _SENTINEL: ""})
    except KafkaException as error:
        message = str(error.args[0].str()).strip()
    if _SENTINEL in message:
        return None
    if message.startswith("No such configuration property"):
        near = difflib.get_close_matches(name, COMMON, n=1)
        return "librdkafka knows no such property" + (f"; did you mean {near[0]}?" if near else "")
    return "librdkafka refuses its value" if is_secret(name) else f"librdkafka: {message}"
