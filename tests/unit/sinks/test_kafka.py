"""The Kafka sink without a Kafka: its records and its settings."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from flagstream.record_limits import ENVELOPE
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.kafka.records import Produce
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.testing import PARTITION, Produced, RecordedTransaction, StoredRecord, event, fill
from tests.unit.test_config import problems, read


def delivered(sink: TopicSink, *values: bytes) -> list[Produced]:
    """The records of a window of ``values``."""
    window, transaction = fill(sink, values), RecordedTransaction()
    sink.deliver_in(transaction, window.manifest, window.payload)
    return transaction.produced


def test_records_are_those_of_go_feature_flag() -> None:
    """The key is the userKey's bytes, the value is the event's JSON without a line break, no headers."""
    value = '{"kind":"feature","userKey":"Zoë \\"Z\\"","key":"banner","value":1}'.encode()

    assert delivered(TopicSink(KafkaSinkSettings(topic="copies")), value) == [
        Produced("copies", 'Zoë "Z"'.encode(), value, [])
    ]


def test_ids_are_given_when_asked_for() -> None:
    """The id is output topic, partition and offset; the same on every try."""
    (record,) = delivered(TopicSink(KafkaSinkSettings(topic="copies", event_ids=True)), event(0))

    assert record.value is not None
    assert json.loads(record.value) == {"id": "evaluations-3-0"} | json.loads(event(0))


@pytest.mark.parametrize(
    "value",
    [b'{"kind":"feature"}', b'{"userKey":7}', b'{"userKey":null}', b"text"],
    ids=["no userKey", "a number", "null", "no object"],
)
def test_an_event_without_a_user_key_is_rejected(value: bytes) -> None:
    """It has no key to be produced under."""
    encoder = TopicSink(KafkaSinkSettings(topic="copies")).begin(PARTITION, 0)

    (reject,) = encoder.add([value], [StoredRecord(0, value)])

    assert (reject.index, reject.reason) == (0, "not_an_event")
    assert "userKey" in reject.error or "JSON" in reject.error


def test_an_event_that_the_topic_cannot_take_is_rejected() -> None:
    """The limit is the one that the engine has found out; what fits exactly passes."""
    sink = TopicSink(KafkaSinkSettings(topic="copies"))
    sink.limit = ENVELOPE + len(event(1)) + len(b"user-1")
    longer = event(1, '"longer"')
    encoder = sink.begin(PARTITION, 0)

    (reject,) = encoder.add([event(1), longer], [StoredRecord(0, event(1)), StoredRecord(1, longer)])

    assert (reject.index, reject.reason) == (1, "too_large")
    assert f"takes {sink.limit - ENVELOPE}" in reject.error


def test_memory_counts_what_python_adds() -> None:
    """A window of small events takes more than its bytes."""
    encoder = TopicSink(KafkaSinkSettings(topic="copies")).begin(PARTITION, 0)
    assert encoder.memory == 0
    encoder.add([event(1)], [StoredRecord(0, event(1))])

    assert encoder.memory > encoder.size > 0


def test_preview() -> None:
    """The preview shows the topic, and a record with its key."""
    sink = TopicSink(KafkaSinkSettings(topic="copies"))
    window = fill(sink, [event(1), event(2)])

    shown = sink.preview(window.manifest, window.payload)

    assert (list(shown.names), shown.record) == (["copies"], f"user-1: {event(1).decode()}")


def test_what_cannot_be_proved_says_so() -> None:
    """A probe record would be seen by the topic's readers."""
    assert [proof.outcome for proof in TopicSink(KafkaSinkSettings(topic="copies")).probe()] == ["unproved"]


def test_payload_is_plain() -> None:
    """What travels to the producer is key and value."""
    assert fill(TopicSink(KafkaSinkSettings(topic="copies")), [event(1)]).payload == (
        Produce(b"user-1", event(1)),
    )


@pytest.mark.parametrize("role", ["ingest", "output", "dead_letters"])
def test_the_worker_s_own_topics_are_refused(tmp_path: Path, role: str) -> None:
    """A sink that feeds its own input would go round for ever."""
    text = f'[topics]\n{role} = "mine"\n[sinks.copy]\ntype = "kafka"\ntopic = "mine"'

    assert problems(tmp_path, text) == [
        f'sinks.copy.topic: "mine" is topics.{role}; a sink needs a topic of its own'
    ]


def test_another_cluster_may_use_the_same_name(tmp_path: Path) -> None:
    """There it is another topic."""
    sink = 'type = "kafka"\ntopic = "mine"\nbootstrap_servers = "b:9092"'
    text = f'[topics]\noutput = "mine"\n[sinks.copy]\n{sink}'

    assert read(tmp_path, text).sinks["copy"] == KafkaSinkSettings(topic="mine", bootstrap_servers="b:9092")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('topic = "no spaces"', '"no spaces" is not a topic name'),
        ('topic = "t"\nproperties = {"linger.ms" = 5}', "properties: only with bootstrap_servers"),
        (
            'topic = "t"\nbootstrap_servers = "b:9092"\nproperties = {acks = 1}',
            "acks cannot be handed through: the worker sets it itself",
        ),
        (
            'topic = "t"\nbootstrap_servers = "b:9092"\nproperties = {partitioner = "random"}',
            "partitioner cannot be handed through: set partitioner of the sink",
        ),
        (
            'topic = "t"\nbootstrap_servers = "b:9092"\nproperties = {"lingr.ms" = 5}',
            "lingr.ms: librdkafka knows no such property; did you mean linger.ms?",
        ),
        ('topic = "t"\npartitioner = "fnv1"', 'did you mean "fnv1a"?'),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path: Path, lines: str, problem: str) -> None:
    """Each is reported with what would be right."""
    (found,) = problems(tmp_path, f'[sinks.copy]\ntype = "kafka"\n{lines}')

    assert problem in found


@pytest.mark.parametrize(
    ("lines", "environ"),
    [
        ('properties = { "sasl.password" = "hunter2", PROTOCOL }', {}),
        ('properties = { sasl.password = "hunter2", PROTOCOL }', {}),
        ("properties = { PROTOCOL }", {"FLAGSTREAM_SINKS__COPY__PROPERTIES__SASL_PASSWORD": "hunter2"}),
    ],
    ids=["quoted", "dotted", "environment"],
)
def test_a_password_is_read_and_never_shown(tmp_path: Path, lines: str, environ: Mapping[str, str]) -> None:
    """Secrets come from the file, with and without quotes, and from the environment."""
    text = f'[sinks.copy]\ntype = "kafka"\ntopic = "t"\nbootstrap_servers = "b:9092"\n{lines}'
    text = text.replace("PROTOCOL", '"security.protocol" = "sasl_ssl", "sasl.mechanisms" = "PLAIN"')

    settings = read(tmp_path, text, environ).sinks["copy"]

    assert isinstance(settings, KafkaSinkSettings)
    assert isinstance(settings.properties["sasl.password"], SecretStr)
    assert "hunter2" not in repr(settings)
