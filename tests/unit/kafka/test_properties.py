"""The properties that librdkafka gets, and those that users cannot set."""

import pytest
from confluent_kafka import Consumer, Producer

from flagstream.config import Settings
from flagstream.config.settings import EnrichSettings, KafkaSettings
from flagstream.kafka.properties import (
    admin_properties,
    check_properties,
    consumer_properties,
    enrich_group,
    process_instance,
    producer_properties,
    sink_group,
    static_member,
    transactional_id,
)
from flagstream.librdkafka import (
    COMMON,
    RESERVED,
    RESERVED_UNDER_CONSUMER_PROTOCOL,
    is_secret,
    problems,
)
from flagstream.memory import MemoryShare
from flagstream.units import MIB

HIDDEN = "hunter2"


def settings(**kafka: object) -> Settings:
    """Return settings with these values in ``[kafka]``."""
    return Settings(name="prod", kafka=KafkaSettings(**kafka))  # type: ignore[arg-type]


def test_names_hold_name_stage_and_instance() -> None:
    """The groups and ids of two workers in one cluster differ by the name."""
    named = settings(instance="pod-0", static_membership=True)
    assert enrich_group(named) == "prod.enrich"
    assert sink_group(named, "archive") == "prod.sink.archive"
    assert transactional_id(named, "enrich", process_instance(named)) == "prod.enrich.pod-0"
    assert static_member(named, "sink.archive") == "prod.sink.archive.pod-0"


def test_without_an_instance_each_process_has_a_random_one() -> None:
    """Two live processes of one name would fence each other, so each gets a random instance; none is a static
    member.
    """
    assert process_instance(settings()) != process_instance(settings())
    assert static_member(settings(instance="pod-0"), "enrich") is None


def test_a_classic_consumer() -> None:
    """A consumer of the classic protocol has everything that exactly-once depends on, with cooperative
    rebalancing.
    """
    found = consumer_properties(settings(session_timeout=6), "g", "member")
    wanted = {
        "bootstrap.servers": "localhost:9092",
        "group.id": "g",
        "group.protocol": "classic",
        "group.instance.id": "member",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6000,
        "max.poll.interval.ms": 300_000,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "socket.timeout.ms": 10_000,
    }
    assert wanted == {name: found[name] for name in wanted}


def test_a_consumer_of_the_new_protocol_leaves_to_the_broker_what_is_the_brokers() -> None:
    """Under the new protocol librdkafka refuses session times and assignors, so they are not set."""
    found = consumer_properties(settings(group_protocol="consumer"), "g", None)
    assert found["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "partition.assignment.strategy", "group.instance.id"} & set(found)


def test_a_long_session_lengthens_the_poll_interval() -> None:
    """The poll interval is at least the session time-out, as librdkafka demands."""
    assert consumer_properties(settings(session_timeout=600), "g", None)["max.poll.interval.ms"] == 600_000


def test_a_producer() -> None:
    """The producer is transactional, with room for the transaction that fills while the last one commits."""
    enrich = EnrichSettings(
        transaction_timeout=5, max_transaction_events=300_000, max_transaction_bytes=2**30
    )
    found = producer_properties(Settings(enrich=enrich), "id")
    wanted = {
        "transactional.id": "id",
        "enable.idempotence": True,
        "transaction.timeout.ms": 5000,
        "socket.timeout.ms": 5000,
        "partitioner": "murmur2_random",
        "queue.buffering.max.messages": 600_000,
        "queue.buffering.max.kbytes": 2 * 2**20,
    }
    assert wanted == {name: found[name] for name in wanted}


def test_what_is_handed_through_replaces_our_defaults_with_secrets_uncovered() -> None:
    """Users' properties replace defaults. The tables of one client override the general one, and each client
    gets only its own.
    """
    given = settings(
        properties={"sasl.password": HIDDEN, "client.id": "mine", "socket.timeout.ms": 5000},
        consumer_properties={"client.id": "my consumer", "fetch.min.bytes": 10},
        producer_properties={"linger.ms": 50},
    )
    consumer = consumer_properties(given, "g", None)
    producer = producer_properties(given, "id")
    assert tuple(
        consumer[name] for name in ("sasl.password", "client.id", "socket.timeout.ms", "fetch.min.bytes")
    ) == (HIDDEN, "my consumer", 5000, 10)
    assert tuple(producer[name] for name in ("client.id", "linger.ms", "sasl.password")) == (
        "mine",
        50,
        HIDDEN,
    )
    assert "linger.ms" not in consumer
    assert admin_properties(given) == {
        "bootstrap.servers": "localhost:9092",
        "client.id": "mine",
        "socket.timeout.ms": 5000,
        "sasl.password": HIDDEN,
        "log_level": 2,
    }


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("timeout", [1.0, 10.0, 900.0])
def test_librdkafka_takes_our_configuration(protocol: str, timeout: float) -> None:
    """librdkafka takes the configuration under both protocols, at the limits of what can be set."""
    enrich = EnrichSettings(
        transaction_timeout=timeout, max_transaction_events=1_000_000, max_transaction_bytes=2**31
    )
    kafka = KafkaSettings(group_protocol=protocol, session_timeout=3600)  # type: ignore[arg-type]
    assert check_properties(Settings(kafka=kafka, enrich=enrich)) == []


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_properties_are_refused_with_the_reason(name: str) -> None:
    """The refusal of a reserved property says why, or which setting to use."""
    assert [(name, f"cannot be handed through: {RESERVED[name]}")] == list(
        problems({name: HIDDEN}, "classic")
    )


def test_everything_that_we_fix_is_reserved() -> None:
    """Every property that the worker fixes is refused, since setting it would have no effect."""
    plain = settings()
    ours = consumer_properties(plain, "g", "member").keys() | producer_properties(plain, "id").keys()
    free = settings(properties=dict.fromkeys(ours, "theirs"))
    applied = (consumer_properties(free, "g", "member"), producer_properties(free, "id"))
    fixed = {name for found in applied for name, value in found.items() if value != "theirs"}
    assert fixed <= set(RESERVED)


@pytest.mark.parametrize("name", RESERVED_UNDER_CONSUMER_PROTOCOL)
def test_what_the_broker_decides_under_kip_848_is_refused_only_there(name: str) -> None:
    """Properties that the broker decides under KIP-848 are refused only there, and not while the protocol is
    unknown.
    """
    value = "consumer" if name == "group.protocol.type" else 1000
    assert [name] == [found for found, _ in problems({name: value}, "consumer")]
    assert list(problems({name: value}, "classic")) == []
    assert list(problems({name: value}, None)) == []


def test_an_unknown_property_is_refused_with_the_nearest_name() -> None:
    """librdkafka itself decides which properties exist."""
    assert list(problems({"sasl.pasword": HIDDEN, "qqqqqqqq": 1}, "classic")) == [
        ("sasl.pasword", "librdkafka knows no such property; did you mean sasl.password?"),
        ("qqqqqqqq", "librdkafka knows no such property"),
    ]


def test_a_value_that_librdkafka_refuses_is_reported() -> None:
    """Every value that librdkafka refuses is reported, not only the first."""
    found = dict(problems({"linger.ms": -5, "security.protocol": "tls", "client.id": "fine"}, "classic"))
    assert list(found) == ["linger.ms", "security.protocol"]
    assert 'Invalid value "tls"' in found["security.protocol"]


def test_every_suggested_name_exists() -> None:
    """librdkafka knows every suggested name, except those that are refused anyway."""
    unknown = "librdkafka knows no such property"
    names = [name for name in COMMON if name not in RESERVED]
    assert [name for name in names for _, message in problems({name: "x"}, None) if unknown in message] == []


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
    ],
)
def test_passwords_and_keys_are_secret(name: str) -> None:
    """A value that unlocks something is never shown."""
    assert is_secret(name)
    assert HIDDEN not in repr(settings(properties={name: HIDDEN}))


def test_a_contradiction_is_reported_once_and_without_secrets() -> None:
    """A reason that holds for both kinds of client is one line, without secrets."""
    (problem,) = check_properties(
        settings(properties={"security.protocol": "ssl", "ssl.key.pem": HIDDEN, "ssl.ca.location": "/none"})
    )
    assert problem.startswith("kafka.properties: librdkafka cannot make consumers and producers: ")
    assert HIDDEN not in problem


def test_a_property_that_only_one_kind_of_client_cannot_take_names_it() -> None:
    """Idempotent producers have limits that consumers do not have; the reason names the kind of client."""
    assert check_properties(settings(producer_properties={"max.in.flight": 6})) == [
        "kafka.properties: librdkafka cannot make producers: "
        "`max.in.flight` must be set <= 5 when `enable.idempotence` is true"
    ]


def test_oauth_needs_nothing_but_properties() -> None:
    """librdkafka's own OIDC client is configured with properties alone."""
    oauth = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": HIDDEN,
        "sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token",
    }
    assert list(problems(settings(properties=oauth).kafka.properties, "classic")) == []
    assert check_properties(settings(properties=oauth)) == []


@pytest.mark.parametrize("total", [MIB, 64 * MIB, 10_240 * MIB])
def test_what_waits_in_a_client_is_part_of_the_share(total: int) -> None:
    """The share bounds what a consumer fetches ahead, what brokers may answer at once, and what a producer
    has not delivered. librdkafka takes the properties with any share.
    """
    memory = MemoryShare(total)
    consumer = consumer_properties(Settings(), "g", None, memory)
    producer = producer_properties(Settings(), "id", memory)

    fetched = int(str(consumer["queued.max.messages.kbytes"])) * 1024
    assert fetched + int(str(producer["queue.buffering.max.kbytes"])) * 1024 <= max(total, 2 * MIB)
    assert int(str(consumer["fetch.max.bytes"])) <= fetched
    Consumer({**consumer, "bootstrap.servers": ""}).close()
    Producer({**producer, "bootstrap.servers": ""})


@pytest.mark.parametrize("name", ["message.max.bytes", "fetch.max.bytes"])
@pytest.mark.parametrize("value", [5_000, 50_000_000])
def test_sizes_that_are_handed_through_do_not_contradict_ours(name: str, value: int) -> None:
    """Sizes that users set, for producers or to fetch more at a time, do not contradict those of the
    worker.
    """
    given = settings(properties={name: value})

    assert check_properties(Settings(kafka=given.kafka)) == []
    found = consumer_properties(given, "g", None)
    if name == "fetch.max.bytes":
        assert found[name] == value
