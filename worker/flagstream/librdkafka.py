"""The librdkafka properties that users may set: which are secret, which are ours, and which do not exist."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from flagstream.nearest import near
from flagstream.units import Written, shown, wrong

_SECRET = re.compile(
    r"password|passphrase|secret|private\.key|key\.pem|oauthbearer\.config|jaas", re.IGNORECASE
)
_WITH_CREDENTIALS = re.compile(r"://[^/]*@")

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
_NO_SUCH = "No such configuration property"


def is_secret(name: str) -> bool:
    """Return whether a property's value must never be shown."""
    return _SECRET.search(name) is not None


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float | SecretStr):
        raise wrong("a property is a text, a number or true or false")
    return value


def _hide(properties: dict[str, "PropertyValue"]) -> dict[str, "PropertyValue"]:
    return {
        name: SecretStr(str(value)) if _must_hide(name, value) else value
        for name, value in properties.items()
    }


def _must_hide(name: str, value: object) -> bool:
    if isinstance(value, SecretStr):
        return False
    return is_secret(name) or (isinstance(value, str) and _WITH_CREDENTIALS.search(value) is not None)


_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%\w+)?\]")


def _brokers(text: str) -> str:
    """Check for host:port, separated by commas. Anything else may hold a password, so it is not shown."""
    for broker in filter(None, map(str.strip, text.split(","))):
        host, colon, port = broker.rpartition(":")
        scheme, _, rest = broker.rpartition("://")
        if scheme:
            what = f'begins with "{scheme}://"' if "@" not in broker else "has a scheme"
            advice = "" if "@" in broker else f": {shown(rest)}"
            raise wrong(f"holds an address that {what}; write host:port alone{advice}")
        if re.search(r"[\s;|]", broker) and "@" not in broker:
            raise wrong(f"{shown(broker)} is not a host with a port; separate several by commas")
        if "@" in broker:
            raise wrong("holds no user or password; they are sasl.username and sasl.password in properties")
        if broker.count(":") > 1 and not broker.startswith("["):
            address, of_port = broker, "9092"
            if re.fullmatch(r".*[0-9a-fA-F]:[0-9]{4,5}", broker):  # likely a port
                address, of_port = host, port
            raise wrong(f'{shown(broker)} has no port; write "[{address}]:{of_port}"')
        if not colon or broker.endswith("]"):
            raise wrong(f'{shown(broker)} has no port; write "{broker.rstrip(":")}:9092"')
        if not _HOST.fullmatch(host):
            raise wrong(f"{shown(broker)} is not a host with a port; write host:port, separated by commas")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise wrong(f"{shown(broker)} has no port from 1 to 65535; write host:9092")
    if text and not text.strip(" ,"):
        raise wrong("holds no broker; write host:port, separated by commas")
    return text


Brokers = Annotated[str, AfterValidator(_brokers)]
"""The addresses of the first brokers, for librdkafka."""

PropertyValue = Annotated[bool | int | float | str | SecretStr, BeforeValidator(_scalar)]
Properties = Annotated[
    dict[str, PropertyValue],
    AfterValidator(_hide),
    Written("table of properties", lambda properties: "{}" if not properties else shown(properties)),
]
"""Properties by librdkafka's names. Values of secret ones are kept as ``SecretStr``."""


def plain(properties: Properties) -> dict[str, bool | int | float | str]:
    """Return the properties with their secrets uncovered, for librdkafka only."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in properties.items()
    }


def problems(properties: Properties, group_protocol: str | None) -> Iterator[tuple[str, str]]:
    """Yield the properties that users cannot set: the name, and why (never the value).

    ``group_protocol`` is None if it could not be read; then nothing that depends on it is judged.
    """
    reserved = dict(RESERVED)
    if group_protocol == "consumer":
        reserved |= RESERVED_UNDER_CONSUMER_PROTOCOL
    for name, value in plain(properties).items():
        if name in reserved:
            yield name, f"cannot be handed through: {reserved[name]}"
        elif reason := _refused_by_librdkafka(name, value):
            yield name, reason


_SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")


def contradictions(properties: Properties) -> Iterator[tuple[str, str]]:
    """Yield the properties of one client that would silently not be used, or keep it out: the name, and the
    way out.

    librdkafka accepts all of them silently.
    """
    given = plain(properties)
    protocol = str(given.get("security.protocol", "plaintext")).lower()
    sasl = [name for name in given if name.startswith("sasl.")]
    if protocol in ("plaintext", "ssl") and sasl:
        yield (
            sasl[0],
            f'is not used, since security.protocol is "{protocol}"; write "security.protocol" = "sasl_ssl", '
            'or "sasl_plaintext" for brokers without TLS',
        )
    ssl = [name for name in given if name.startswith("ssl.")]
    if protocol in ("plaintext", "sasl_plaintext") and ssl:
        right = "ssl" if protocol == "plaintext" and not sasl else "sasl_ssl"
        yield (
            ssl[0],
            f'is not used, since security.protocol is "{protocol}"; write "security.protocol" = "{right}"',
        )
    if protocol in ("sasl_plaintext", "sasl_ssl"):
        yield from _sasl_contradictions(given)


def _sasl_contradictions(given: Mapping[str, bool | int | float | str]) -> Iterator[tuple[str, str]]:
    if {"sasl.mechanism", "sasl.mechanisms"} <= given.keys():
        yield "sasl.mechanism", "is another name of sasl.mechanisms, which is there too; leave one out"
        return
    key = "sasl.mechanism" if "sasl.mechanism" in given else "sasl.mechanisms"
    mechanism = str(given.get(key, ""))
    if not mechanism:
        yield "sasl.mechanisms", f"is missing; write one of {', '.join(_SASL_MECHANISMS[:-1])}"
    elif mechanism not in _SASL_MECHANISMS:
        meant = near(mechanism, _SASL_MECHANISMS, cutoff=0.5)
        hint = f'; did you mean "{meant}"?' if meant else f"; write one of {', '.join(_SASL_MECHANISMS[:-1])}"
        yield key, f"{shown(mechanism)} is not a mechanism of librdkafka{hint}"
    elif mechanism == "OAUTHBEARER":
        unsecured = str(given.get("enable.sasl.oauthbearer.unsecure.jwt", "")).lower() == "true"
        if str(given.get("sasl.oauthbearer.method", "default")).lower() == "default" and not unsecured:
            yield (
                "sasl.oauthbearer.method",
                'is missing, and without it no token is ever fetched; write "oidc", with '
                "sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and "
                "sasl.oauthbearer.token.endpoint.url",
            )
    oauth = [name for name in given if name.startswith("sasl.oauthbearer.")]
    if oauth and mechanism in _SASL_MECHANISMS and mechanism != "OAUTHBEARER":
        yield oauth[0], f'is not used, since {key} is "{mechanism}"; write "{key}" = "OAUTHBEARER"'


def _refused_by_librdkafka(name: str, value: bool | int | float | str) -> str | None:
    """Return why librdkafka refuses one property, without making a client; None if it accepts it.

    librdkafka takes properties one by one, in order, and starts nothing before it has taken all. The last one
    does not exist, so there is always an error, about this property or about that one.
    """
    message = _answer(name, value)
    if _SENTINEL in message:
        return None
    if message.startswith(_NO_SUCH):
        meant = nearest_property(name)
        return "librdkafka knows no such property" + (f"; did you mean {meant}?" if meant else "")
    shown = not is_secret(name) and not (isinstance(value, str) and _WITH_CREDENTIALS.search(value))
    return f"librdkafka: {message}" if shown else "librdkafka refuses its value"


def _answer(name: str, value: bool | int | float | str) -> str:
    from confluent_kafka import KafkaException, Producer

    try:
        Producer({name: value, _SENTINEL: ""})
    except KafkaException as error:
        return str(error.args[0].str()).strip()
    raise AssertionError(f"librdkafka takes {_SENTINEL}")


def exists(name: str) -> bool:
    """Return whether a property is reserved, or librdkafka knows it."""
    return name in RESERVED or _SENTINEL in _answer(name, "") or not _answer(name, "").startswith(_NO_SUCH)


def nearest_property(name: str) -> str | None:
    """Return the common property that ``name`` resembles most; ``_`` may stand for ``.``."""
    return near(name.replace("_", "."), COMMON)
