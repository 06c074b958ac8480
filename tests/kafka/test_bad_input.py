"""Records that are no events end as dead letters, and the worker goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from flagstream import __version__
from tests.support.broken_records import ACCEPTED, BROKEN_RECORDS, EVENT, MEBIBYTE
from tests.support.kafka_records import Received, Sent, consume_all, produce
from tests.support.raw_headers import produce_with_header_name
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration

LARGE = {"max.message.bytes": str(16 * MEBIBYTE)}
BIG_EVENT = EVENT[:-1] + b',"x":"' + b"a" * 200_000 + b'"}'


def send_large(bootstrap: str, topic: str, records: list[Sent]) -> None:
    """Produce records that a producer refuses by default."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 16 * MEBIBYTE})
    for record in records:
        producer.produce(
            topic, record.value, record.key, headers=list(record.headers or []), timestamp=record.timestamp_ms
        )
    assert producer.flush(60) == 0


def header(record: Received, name: str) -> str:
    """The worker's header `name`, which stands there once."""
    [value] = [value for found, value in record.headers if found == f"flagstream-{name}"]
    return value.decode()


def reasons(records: list[Received]) -> list[str]:
    return [header(record, "reason") for record in records]


@pytest.fixture
def run(bootstrap: str, tmp_path: Path) -> Callable[[Topics], RunningWorker]:
    """Starts a worker with the enrich stage alone."""
    return lambda topics: RunningWorker(
        configuration(bootstrap, tmp_path, topics), tmp_path, arguments=["--stage", "enrich"]
    )


def test_each_broken_record_is_a_dead_letter_with_its_reason(
    admin: AdminClient, bootstrap: str, run: Callable[[Topics], RunningWorker]
) -> None:
    """All kinds of broken record in one topic: each becomes a dead letter, or is accepted as the docs say.

    None stops the worker, which passes the good event after them.
    """
    topics = Topics.create(admin, "broken", ingest=LARGE, output=LARGE, dead_letters=LARGE)
    sent = [
        Sent(name.encode(), value, [("trace", name.encode())], timestamp_ms=1_700_000_000_000 + number)
        for number, (name, value, _) in enumerate(BROKEN_RECORDS)
    ]
    expected = {name: reason for name, _, reason in BROKEN_RECORDS if reason != ACCEPTED}
    send_large(bootstrap, topics.ingest, [*sent, Sent(b"good", EVENT)])

    with run(topics) as worker:
        output = await_records(bootstrap, topics.output, len(BROKEN_RECORDS) - len(expected) + 1)
        dead = await_records(bootstrap, topics.dead_letters, len(expected))
        assert worker.stop() == 0

    assert {(record.key or b"").decode(): header(record, "reason") for record in dead} == expected
    accepted = [name for name, _, reason in BROKEN_RECORDS if reason == ACCEPTED]
    assert [(record.key or b"").decode() for record in output] == [*accepted, "good"]
    assert all(json.loads(record.value or b"", parse_int=len) for record in output)


def test_a_dead_letter_is_the_original_with_its_origin_in_headers(
    admin: AdminClient, bootstrap: str, run: Callable[[Topics], RunningWorker]
) -> None:
    """Key, value and headers are kept, a header that is there twice too; `flagstream-*` headers say where it
    came from, when, and what is wrong."""
    topics = Topics.create(admin, "letter")
    own = [("h", b"1"), ("h", b"\xff\x00"), ("empty", b"")]
    produce(
        bootstrap,
        topics.ingest,
        [
            Sent(b"k", EVENT),
            Sent(b"\xff", b"no event", own, timestamp_ms=1_700_000_000_123),
            Sent(None, None, timestamp_ms=1_700_000_000_124),
        ],
    )

    with run(topics):
        broken, tombstone = await_records(bootstrap, topics.dead_letters, 2)

    assert (broken.key, broken.value, broken.headers[:3]) == (b"\xff", b"no event", own)
    added = {name: value.decode() for name, value in broken.headers[3:]}
    error = added.pop("flagstream-error")
    assert added == {
        "flagstream-stage": "enrich",
        "flagstream-topic": topics.ingest,
        "flagstream-partition": "0",
        "flagstream-offset": "1",
        "flagstream-timestamp": "1700000000123",
        "flagstream-reason": "invalid_json",
        "flagstream-version": __version__,
    }
    assert "malformed" in error
    assert (tombstone.key, tombstone.value, header(tombstone, "reason")) == (None, None, "tombstone")


def test_an_event_too_large_for_the_output_topic_is_a_dead_letter(
    admin: AdminClient, bootstrap: str, run: Callable[[Topics], RunningWorker]
) -> None:
    """The topic's own limit decides, with the room that the enrichment takes; the letter is cut to what both
    topics take, and says how large the record was."""
    topics = Topics.create(admin, "narrow", output={"max.message.bytes": "100000"})
    sizes = (50_000, 99_000, 99_950, 150_000)
    events = [Sent(b"k", EVENT[:-1] + b',"x":"' + b"a" * (size - len(EVENT) - 8) + b'"}') for size in sizes]
    produce(bootstrap, topics.ingest, [*events, Sent(b"k", EVENT)])

    with run(topics) as worker:
        output = await_records(bootstrap, topics.output, 3)
        dead = await_records(bootstrap, topics.dead_letters, 2)
        assert worker.stop() == 0

    assert [len(record.value or b"") > 40_000 for record in output] == [True, True, False]
    assert reasons(dead) == ["too_large", "too_large"]


def test_a_dead_letter_that_does_not_fit_is_cut_and_says_so(
    admin: AdminClient, bootstrap: str, run: Callable[[Topics], RunningWorker]
) -> None:
    """The value's beginning is kept, with the full size in a header; headers that alone are too large go."""
    topics = Topics.create(admin, "cut", ingest=LARGE, dead_letters={"max.message.bytes": "20000"})
    value = b"x" * (3 * MEBIBYTE)
    headers = [("h", b"y" * 100_000)]
    send_large(
        bootstrap,
        topics.ingest,
        [Sent(b"k", value), Sent(b"k", value, headers), Sent(b"z" * 100_000, value), Sent(b"k", EVENT)],
    )

    with run(topics):
        plain, with_headers, with_key = await_records(bootstrap, topics.dead_letters, 3)
        await_records(bootstrap, topics.output, 1)

    assert {header(letter, "truncated-from") for letter in (plain, with_headers, with_key)} == {
        str(len(value))
    }
    assert 15_000 < len(plain.value or b"") < 20_000
    assert value.startswith(plain.value or b"?")
    assert "h" not in dict(with_headers.headers)
    assert (with_key.key or b"").strip(b"z") == b""


def test_a_limit_that_the_broker_lowers_under_way_ends_in_dead_letters(
    admin: AdminClient, bootstrap: str, run: Callable[[Topics], RunningWorker]
) -> None:
    """The topic takes less than it said at the start: the transaction aborts, and what is too large becomes a
    dead letter instead of aborting for ever. The same happens where the broker does not report its limit."""
    topics = Topics.create(admin, "lowered")
    with run(topics) as worker:
        produce(bootstrap, topics.ingest, [Sent(b"k", EVENT), Sent(b"k", BIG_EVENT)])
        await_records(bootstrap, topics.output, 2)
        for name in (topics.output, topics.dead_letters):
            _lower(admin, name, 30_000)

        produce(bootstrap, topics.ingest, [Sent(b"k", BIG_EVENT), Sent(b"k", EVENT)])
        output = await_records(bootstrap, topics.output, 3)
        dead = consume_all(bootstrap, topics.dead_letters)
        assert worker.stop() == 0

    assert [len(record.value or b"") > 100_000 for record in output] == [False, True, False]
    assert reasons(dead) == ["too_large"]
    assert header(dead[0], "truncated-from") == str(len(BIG_EVENT))


@pytest.mark.parametrize("stage", ["enrich", "sink"])
def test_a_header_whose_name_is_not_utf8(
    admin: AdminClient, bootstrap: str, tmp_path: Path, stage: str
) -> None:
    """Kafka takes it, our client cannot read it. An event with it is a dead letter of the enrich stage; where
    a sink has to reject the record for another reason, its letter goes without the headers. Those around it
    pass."""
    topics = Topics.create(admin, "names")
    topic, bad = (topics.ingest, EVENT) if stage == "enrich" else (topics.output, b"no event")
    produce(bootstrap, topic, [Sent(b"k", EVENT)])
    produce_with_header_name(bootstrap, topic, b"bad", bad, b"caf\xe9")
    produce(bootstrap, topic, [Sent(b"k", EVENT)])
    archive = {"type": "file", "path": str(tmp_path / "archive"), "flush_interval": "500ms"}
    config = configuration(bootstrap, tmp_path, topics, sinks={"archive": archive})
    arguments = ["--stage", "enrich"] if stage == "enrich" else ["--sink", "archive"]

    with RunningWorker(config, tmp_path, arguments=arguments) as worker:
        [dead] = await_records(bootstrap, topics.dead_letters, 1)
        if stage == "enrich":
            assert [record.key for record in await_records(bootstrap, topics.output, 2)] == [b"k", b"k"]
        assert worker.stop() == 0

    assert (dead.key, dead.value) == (b"bad", bad)
    assert header(dead, "reason") == ("invalid_headers" if stage == "enrich" else "foreign")
    assert all(name.startswith("flagstream-") for name, _ in dead.headers)


def _lower(admin: AdminClient, topic: str, limit: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)
