"""The webhook sink on a real Kafka: a receiver that fails, is mended, and loses sight of nothing."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from tests.support.exporting import event, events, kafka_section
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import Sent, produce
from tests.support.receiver import Answer, CloseHalfWay, Receiver, Reply, Request, receiving
from tests.support.running_worker import (
    Configuration,
    RunningWorker,
    Topics,
    await_records,
    configuration,
    eventually,
)


def configured(
    bootstrap: str, folder: Path, topics: Topics, receiver: Receiver, limits: BrokerLimits, **hook: Any
) -> Configuration:
    """A worker with one webhook: windows of 20 events in requests of 8, a breaker that soon tries again, and
    sessions as short as the broker allows.
    """
    settings = {
        "type": "webhook",
        "endpoint_url": receiver.url,
        "allow_private_addresses": True,
        "secret": "hidden",
        "max_events": 20,
        "flush_interval": "300ms",
        "max_part_events": 8,
        "timeout": "2s",
        "breaker_pause": "200ms",
        **hook,
    }
    kafka = kafka_section("classic", limits)
    return configuration(bootstrap, folder, topics, kafka=kafka, sinks={"hook": settings})


def sent(bootstrap: str, topics: Topics, values: list[bytes], partition: int = 0) -> None:
    """Enriched events in the output topic."""
    produce(bootstrap, topics.output, [Sent(None, value, None, partition) for value in values])


def unhelpful(request: Request, number: int) -> Answer:
    """What a receiver that is not well answers to the number-th request."""
    answers = (
        Reply(),
        Reply(503),
        CloseHalfWay(),
        Reply(429, {"Retry-After": "1"}),
        CloseHalfWay(b"HTTP/1.1 2"),
    )
    return answers[number % len(answers)]


def test_every_event_arrives_with_ids_that_hold(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """A receiver that answers one request in five, and dies with its worker, gets every event; each id stands
    for the same events on every try, of any process.
    """
    topics = Topics.create(admin, "hook", partitions=2)
    for partition in (0, 1):
        sent(bootstrap, topics, events(50, first=100 * partition), partition)
    with receiving() as receiver:
        config = configured(bootstrap, tmp_path, topics, receiver, limits)
        receiver.answer = lambda request: unhelpful(request, len(receiver.requests))
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as killed:
            receiver.await_requests(8)
            killed.kill()
        receiver.answer = lambda request: Reply()
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            expected = {event(100 * partition + number) for partition in (0, 1) for number in range(50)}
            eventually(lambda: set(receiver.values()) >= expected)
            worker.healthy()
            assert set(receiver.values()) == expected
            assert worker.stop() == 0
            assert "hidden" not in worker.log + killed.log
        once = events_by_id(receiver.requests)
        # A receiver that keeps the ids it has taken has every event once.
        assert sorted(value for values in once.values() for value in values) == sorted(
            number for partition in (0, 1) for number in range(100 * partition, 100 * partition + 50)
        )
        assert {len(values) for values in once.values()} <= set(range(1, 9))


def events_by_id(requests: list[Request]) -> dict[str, list[int]]:
    """The numbers of the events under each id; fails when an id came with different events."""
    found = defaultdict(set)
    for request in requests:
        numbers = tuple(int(event["userKey"].removeprefix("u")) for event in request.events)
        found[request.id].add(numbers)
    assert all(len(contents) == 1 for contents in found.values()), found
    return {id_: list(contents.pop()) for id_, contents in found.items()}


def test_only_what_was_not_accepted_becomes_dead_letters(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """The second of three requests is refused: with `dead_letter` its events and those behind it in the
    window go there; those of the first are with the receiver, once, and so is the next window.
    """
    topics = Topics.create(admin, "refused")
    sent(bootstrap, topics, events(40))
    with receiving() as receiver:
        config = configured(bootstrap, tmp_path, topics, receiver, limits, on_refused="dead_letter")
        receiver.answer = lambda request: Reply(422 if event(12) in request.body else 204)
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            letters = await_records(bootstrap, topics.dead_letters, 12)
            eventually(lambda: event(39) in receiver.values())
            assert worker.stop() == 0
        ids = [request.id.removeprefix(f"{topics.output}-0-") for request in receiver.requests]
    assert [letter.value for letter in letters] == events(12, first=8)
    assert {dict(letter.headers)["flagstream-reason"] for letter in letters} == {b"refused"}
    assert ids == ["0-8", "8-16", "8-28", "28-36", "36-40"]
    assert receiver.values() == [*events(8), *events(20, first=20)]
    assert len(await_records(bootstrap, topics.dead_letters, 12)) == 12


def test_a_receiver_that_is_gone_stops_its_sink(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """410: each partition stops and says so, one request is all that was sent, and after a start with another
    address everything arrives.
    """
    topics = Topics.create(admin, "gone", partitions=2)
    for partition in (0, 1):
        sent(bootstrap, topics, events(10, first=10 * partition), partition)
    with receiving() as receiver:
        config = configured(
            bootstrap, tmp_path, topics, receiver, limits, on_refused="dead_letter", max_part_events=100
        )
        receiver.answer = lambda request: Reply(410)
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            stopped = worker.await_event("partition_stopped", count=2)
            assert "410 Gone" in stopped["problem"]
            assert 1 <= len(receiver.requests) <= 2  # two at the same moment
        receiver.answer = lambda request: Reply()
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            eventually(lambda: len(receiver.values()) >= 20)
            assert sorted(json.loads(value)["userKey"] for value in receiver.values()) == sorted(
                f"u{number}" for number in range(20)
            )
