"""The webhook sink on a real Kafka: a receiver that fails, is mended, and loses sight of nothing."""

import json
import signal
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
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
    """Return the enriched events in the output topic."""
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


def ids(receiver: Receiver, topics: Topics) -> list[str]:
    """The ids of the requests without the partition, in the order in which they came."""
    return [request.id.removeprefix(f"{topics.output}-0-") for request in receiver.requests]


def refusing(*numbers: int, status: int = 403) -> Callable[[Request], Reply]:
    """A receiver that refuses each request in which one of these events is."""
    return lambda request: Reply(status if any(event(n) in request.body for n in numbers) else 204)


@pytest.mark.parametrize("status", [403, 422])
def test_one_bad_event_takes_no_others(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path, status: int
) -> None:
    """A receiver refuses each request that holds event 12: with `dead_letter` that one alone becomes a dead
    letter. The part that it is in is halved down to it; all others are accepted once, under one id each.
    """
    topics = Topics.create(admin, "refused")
    sent(bootstrap, topics, events(40))
    with receiving() as receiver:
        config = configured(bootstrap, tmp_path, topics, receiver, limits, on_refused="dead_letter")
        receiver.answer = refusing(12, status=status)
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            letters = await_records(bootstrap, topics.dead_letters, 1)
            eventually(lambda: event(39) in receiver.values())
            assert worker.stop() == 0
        halves = ["8-16", "8-12", "12-16", "12-14", "12-13", "13-14", "14-16"]
        # A 403 over a connection that was kept is asked again over a new one.
        assert list(dict.fromkeys(ids(receiver, topics))) == [
            "0-8",
            *halves,
            "16-20",
            "20-28",
            "28-36",
            "36-40",
        ]
    assert [letter.value for letter in letters] == [event(12)]
    (headers,) = [dict(letter.headers) for letter in letters]
    assert headers["flagstream-reason"] == b"refused"
    assert str(status).encode() in (headers["flagstream-error"] or b"")
    assert receiver.values() == [value for value in events(40) if value != event(12)]
    assert len(await_records(bootstrap, topics.dead_letters, 1)) == 1


@pytest.mark.parametrize(
    ("crash", "letters"),
    [
        ("export.dividing:kill", range(8, 16)),  # still undivided: nobody knows what its owner saw accepted
        ("export.divided:kill", [12]),
        ("export.part_accepted:kill:2", [12]),
        ("export.divided:kill:5", [12]),
    ],
)
def test_a_death_while_a_part_is_divided_keeps_ids(
    admin: AdminClient,
    bootstrap: str,
    limits: BrokerLimits,
    tmp_path: Path,
    crash: str,
    letters: Sequence[int],
) -> None:
    """Killed at the steps of a division: every event is accepted or a dead letter, each under one id, and an
    id stands for the same events on every try. What was accepted before is not sent again.
    """
    topics = Topics.create(admin, "divided")
    sent(bootstrap, topics, events(40))
    with receiving() as receiver:
        config = configured(
            bootstrap, tmp_path, topics, receiver, limits, on_refused="dead_letter", refused_after="500ms"
        )
        receiver.answer = refusing(12)
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook"), crash=crash) as killed:
            assert killed.wait() == -9
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            found = await_records(bootstrap, topics.dead_letters, len(letters))
            eventually(lambda: event(39) in receiver.values())
            assert worker.stop() == 0
        assert [letter.value for letter in found] == [event(number) for number in letters]
        under = defaultdict(set)
        for id_, numbers in events_by_id(receiver.accepted).items():
            for number in numbers:
                under[number].add(id_)
        assert sorted(under) == [number for number in range(40) if number not in letters]
        assert {len(names) for names in under.values()} == {1}
        events_by_id(receiver.requests)


def test_a_worker_that_was_frozen_while_it_divided_sends_nothing_more(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """It had committed a cut when it froze. Another one goes on from there; when it wakes it has lost the
    partition: no event is accepted twice, and there is one dead letter.
    """
    topics = Topics.create(admin, "frozen")
    sent(bootstrap, topics, events(40))
    with receiving() as receiver:
        config = configured(bootstrap, tmp_path, topics, receiver, limits, on_refused="dead_letter")
        receiver.answer = refusing(12)
        with RunningWorker(
            config, tmp_path, arguments=("--sink", "hook"), crash="export.divided:freeze"
        ) as zombie:
            eventually(lambda: zombie.frozen)
            with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as successor:
                eventually(lambda: event(39) in receiver.values())
                (letter,) = await_records(bootstrap, topics.dead_letters, 1)
                zombie.send(signal.SIGCONT)
                eventually(lambda: bool(zombie.seen("commit_failed") or zombie.seen("partitions_lost")))
                assert successor.stop() == 0
            zombie.await_event("partitions_assigned", count=2)
            sent(bootstrap, topics, [event(40)])
            eventually(lambda: event(40) in receiver.values())
        assert letter.value == event(12)
        assert receiver.values() == [value for value in events(41) if value != event(12)]
    assert len(await_records(bootstrap, topics.dead_letters, 1)) == 1


def test_a_receiver_with_a_smaller_limit_gets_everything(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """413 to more than three events at once: with the default policy all of them arrive, each once."""
    topics = Topics.create(admin, "large")
    sent(bootstrap, topics, events(40))
    with receiving() as receiver:
        config = configured(bootstrap, tmp_path, topics, receiver, limits)
        receiver.answer = lambda request: Reply(413 if len(request.events) > 3 else 204)
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            eventually(lambda: len(receiver.values()) >= 40)
            assert worker.stop() == 0
        assert receiver.values() == events(40)


def test_an_undivided_plan_that_is_taken_over_is_not_divided(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """Its owner died with the answer under way: the part goes out under its own id until it is accepted."""
    topics = Topics.create(admin, "taken_over")
    sent(bootstrap, topics, events(8))
    with receiving() as receiver:
        config = configured(bootstrap, tmp_path, topics, receiver, limits, max_events=8)
        with RunningWorker(
            config, tmp_path, arguments=("--sink", "hook"), crash="export.delivering:kill"
        ) as killed:
            assert killed.wait() == -9
        receiver.answer = lambda request: Reply(413)
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            failed = worker.await_event("sink_failed")
            assert "not divided" in failed["error"]
            receiver.await_requests(3)
            receiver.answer = lambda request: Reply()
            worker.await_event("window_delivered")
            assert worker.stop() == 0
        assert set(ids(receiver, topics)) == {"0-8"}


def test_a_receiver_that_refuses_everything_makes_no_dead_letters(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """The first eight single events are refused: it is the receiver. A restart changes nothing about it, and
    when it takes events again all of them arrive.
    """
    topics = Topics.create(admin, "refuses_all")
    sent(bootstrap, topics, events(40))
    with receiving() as receiver:
        config = configured(
            bootstrap, tmp_path, topics, receiver, limits, on_refused="dead_letter", refused_after="100ms"
        )
        receiver.answer = lambda request: Reply(403)
        for _ in range(2):
            with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
                failed = worker.await_event("sink_failed", count=2)
                assert "nothing becomes a dead letter" in failed["error"]
        receiver.answer = lambda request: Reply()
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            eventually(lambda: len(receiver.values()) >= 40)
            assert worker.stop() == 0
        assert receiver.values() == events(40)
    assert await_records(bootstrap, topics.dead_letters, 0) == []


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
