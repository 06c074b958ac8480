"""The Kafka sink on a real Kafka: each event once in the target topic, whatever dies on the way."""

import json
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.kafka.conftest import TopicFactory
from tests.support.archive import committed
from tests.support.exporting import event, events, kafka_section
from tests.support.kafka_limits import BrokerLimits, Protocol
from tests.support.kafka_records import Received, Sent, consume_all, produce
from tests.support.running_worker import (
    Configuration,
    RunningWorker,
    Topics,
    await_records,
    configuration,
    eventually,
)

PROTOCOLS: Sequence[Protocol] = ("classic", "consumer")
PARTITIONS = 3
FENCED = 3


class Copying:
    """A worker's topics, a target, and the sink `copy` that fills it in windows of twenty events."""

    def __init__(
        self,
        admin: AdminClient,
        bootstrap: str,
        folder: Path,
        target: str,
        kafka: dict[str, Any] | None = None,
        **sink: Any,
    ) -> None:
        self.admin, self.bootstrap, self.folder, self.target = admin, bootstrap, folder, target
        self.topics = Topics.create(admin, "copying", PARTITIONS)
        settings = {"type": "kafka", "topic": target, "max_events": 20, "flush_interval": "300ms", **sink}
        self.config: Configuration = configuration(
            bootstrap, folder, self.topics, kafka=kafka or {}, sinks={"copy": settings}
        )

    def worker(self, crash: str = "", *arguments: str) -> RunningWorker:
        return RunningWorker(self.config, self.folder, crash=crash, arguments=arguments or ("--sink", "copy"))

    def feed(self, values: Sequence[bytes]) -> None:
        """Records to the output topic, as an enrich stage would write them, over all partitions."""
        records = [Sent(b"key", value, None, number % PARTITIONS) for number, value in enumerate(values)]
        produce(self.bootstrap, self.topics.output, records)

    def await_committed(self, offsets: int) -> None:
        """Wait until the offsets committed add up to this many."""
        group = f"{self.config['name']}.sink.copy"

        def sum_is_reached() -> bool:
            found = committed(self.admin, group, self.topics.output, PARTITIONS)
            return sum(one.offset for one in found) >= offsets

        eventually(sum_is_reached)


def fnv1a(key: bytes, partitions: int) -> int:
    """The partition that Sarama's hash partitioner chooses, from its definition: FNV-1a, 32 bits, signed."""
    digest = 0x811C9DC5
    for byte in key:
        digest = (digest ^ byte) * 0x01000193 % 2**32
    signed = digest - 2**32 if digest >= 2**31 else digest
    return abs(signed) % partitions


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_worker_that_is_killed_before_it_commits_leaves_no_trace(
    protocol: Protocol,
    admin: AdminClient,
    bootstrap: str,
    limits: BrokerLimits,
    topic: TopicFactory,
    tmp_path: Path,
) -> None:
    """Records and offsets are produced, not committed: readers see each event once, from the next worker."""
    kafka = {**kafka_section(protocol, limits), "instance": "one"}
    setup = Copying(admin, bootstrap, tmp_path, topic("target"), kafka)
    values = events(200)
    setup.feed(values)

    with setup.worker(crash="transaction.offsets_sent:kill:3") as worker:
        assert worker.wait() == -9
    with setup.worker() as worker:
        found = await_records(bootstrap, setup.target, 200)
        assert worker.stop() == 0

    assert Counter(values) == Counter(record.value for record in found)


def test_events_are_enriched_and_copied(
    admin: AdminClient, bootstrap: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """Each event goes once from the ingest topic to the target, with GO Feature Flag's key, value and
    partition."""
    target = topic("target", 5)
    setup = Copying(admin, bootstrap, tmp_path, target, partitioner="fnv1a", event_ids=True)
    users = [f"user-{number}" for number in range(50)]
    template = '{{"kind":"feature","userKey":"{}","creationDate":1700000000,"key":"banner","value":true}}'
    raw = [Sent(b"other key", template.format(user).encode()) for user in users]
    produce(bootstrap, setup.topics.ingest, raw)

    with setup.worker("", "--stage", "enrich", "--sink", "copy") as worker:
        records = await_records(bootstrap, target, 50)
        assert worker.stop() == 0

    copied = [json.loads(record.value or b"") for record in records]
    assert sorted(users) == sorted(one["userKey"] for one in copied)
    assert {one["source"] for one in copied} == {"PROVIDER_CACHE"}
    assert [one["userKey"].encode() for one in copied] == [record.key for record in records]
    assert [fnv1a(record.key or b"", 5) for record in records] == [record.partition for record in records]
    assert [record.headers for record in records] == [[]] * 50
    assert len({one["id"] for one in copied}) == 50
    assert all(one["id"].startswith(f"{setup.topics.output}-") for one in copied)


def test_a_second_worker_of_the_same_instance_fences_the_first(
    admin: AdminClient, bootstrap: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """Two live processes under one transactional.id: the older one ends with an exit code of its own."""
    setup = Copying(admin, bootstrap, tmp_path, topic("target"), {"instance": "one"})
    with setup.worker() as older:
        older.await_event("partitions_assigned")
        with setup.worker() as newer:
            newer.await_event("partitions_assigned")
            # The group has shared the partitions out; each has some, and events for all of them.
            setup.feed(events(60))
            assert older.wait() == FENCED
            found = await_records(bootstrap, setup.target, 60)
            assert newer.stop() == 0

    assert Counter(events(60)) == Counter(record.value for record in found)


def test_a_target_is_waited_for_and_what_it_cannot_take_is_a_dead_letter(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """The worker is unready until the topic is there. An event that is too large for it leaves in the
    transaction of the events around it, and without a loop.
    """
    setup = Copying(admin, bootstrap, tmp_path, f"late-{uuid.uuid4().hex[:8]}", max_events=3)
    large = event(1)[:-1] + b',"metadata":{"m":"' + b"x" * 5_000 + b'"}}'
    setup.feed([event(0), large, event(2)])

    with setup.worker() as worker:
        worker.await_problem(lambda found: f"missing topics: {setup.target}" in str(found))
        small = NewTopic(setup.target, 1, 1, config={"max.message.bytes": "4000"})
        admin.create_topics([small])[setup.target].result(timeout=30)
        records = await_records(bootstrap, setup.target, 2)
        (letter,) = await_records(bootstrap, setup.topics.dead_letters, 1)
        assert worker.stop() == 0

    assert sorted(record.value or b"" for record in records) == [event(0), event(2)]
    assert dict(letter.headers)["flagstream-reason"] == b"too_large"


def test_another_cluster_gets_every_event(
    admin: AdminClient, bootstrap: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """Delivery is at least once: a worker killed after the acknowledgement sends the window again, and those
    of other partitions that were on their way; nothing is lost."""
    setup = Copying(admin, bootstrap, tmp_path, topic("target"), bootstrap_servers=bootstrap)
    values = events(60)
    setup.feed(values)

    with setup.worker(crash="export.delivering:kill") as worker:
        assert worker.wait() == -9
    with setup.worker() as worker:
        setup.await_committed(60)
        assert worker.stop() == 0

    found: list[Received] = consume_all(bootstrap, setup.target)
    counts = Counter(record.value for record in found)
    assert set(values) == set(counts)
    assert set(counts.values()) <= {1, 2}
    assert sum(count == 2 for count in counts.values()) >= 20, "the window that was acknowledged"


def test_another_cluster_that_refuses_some_events_gets_the_others(
    admin: AdminClient, bootstrap: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """Its topic was made to take less while the worker ran: the events that are too large become dead
    letters, and none of those around them does. From then on the new limit is known."""
    setup = Copying(
        admin,
        bootstrap,
        tmp_path,
        topic("shrinking"),
        bootstrap_servers=bootstrap,
        on_refused="dead_letter",
        max_events=10,
    )
    large = event(1)[:-1] + b',"metadata":{"m":"' + b"x" * 5_000 + b'"}}'
    setup.feed([event(0)] * PARTITIONS)

    with setup.worker() as worker:
        await_records(bootstrap, setup.target, PARTITIONS)
        resource = ConfigResource(ResourceType.TOPIC, setup.target)
        resource.add_incremental_config(
            ConfigEntry("max.message.bytes", "4000", incremental_operation=AlterConfigOpType.SET)
        )
        admin.incremental_alter_configs([resource])[resource].result(timeout=30)
        for count in (1, 2):
            setup.feed([value for n in range(3) for value in [event(n + 2)] * PARTITIONS] + [large])
            await_reasons(bootstrap, setup.topics.dead_letters, count)
        setup.await_committed(PARTITIONS + 2 * (3 * PARTITIONS + 1))
        assert worker.stop() == 0

    # The first one, too, may be encoded again when the new limit is known already.
    first, second = sorted(reasons(bootstrap, setup.topics.dead_letters))
    assert first in (b"refused", b"too_large")
    assert second == b"too_large"
    copied = {record.value for record in consume_all(bootstrap, setup.target)}
    assert copied == {event(0), event(2), event(3), event(4)}


def large(number: int, size: int) -> bytes:
    """An enriched event that hardly compresses."""
    noise = random.Random(number).randbytes(size // 2).hex().encode()
    return b'{"kind":"feature","userKey":"u%d","key":"banner","value":"%s"}' % (number, noise)


def limit(admin: AdminClient, name: str, size: int) -> None:
    """Set the largest batch that a topic takes, and wait until the broker goes by it."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(timeout=20)
    eventually(
        lambda: (
            admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)])[resource]
            .result(timeout=20)["max.message.bytes"]
            .value
            == str(size)
        )
    )


def test_one_record_that_another_cluster_refuses_takes_no_others(
    admin: AdminClient, bootstrap: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """The topic's limit shrinks while the sink runs: whole batches are refused. All events but the large one
    are acknowledged, each once, and that one alone becomes a dead letter.
    """
    target = topic("target")
    setup = Copying(
        admin,
        bootstrap,
        tmp_path,
        target,
        bootstrap_servers=bootstrap,
        on_refused="dead_letter",
        max_events=60,
    )
    with setup.worker() as worker:
        setup.feed(events(3))
        await_records(bootstrap, target, 3)
        limit(admin, target, 2_000)
        bad = large(999, 4_000)
        setup.feed([*events(90, first=100), bad])
        await_records(bootstrap, target, 93)
        (letter,) = await_records(bootstrap, setup.topics.dead_letters, 1)
        assert worker.stop() == 0

    assert letter.value == bad
    headers = dict(letter.headers)
    assert headers["flagstream-reason"] in (b"refused", b"too_large")
    found = consume_all(bootstrap, target)
    assert Counter(record.value for record in found) == Counter([*events(3), *events(90, first=100)])


def test_what_another_cluster_refuses_is_not_repeated_with_all_others(
    admin: AdminClient, bootstrap: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """With the default policy the refused record alone is tried again: the others are not sent with it each
    time. When the topic takes it, it arrives, without a restart.
    """
    target = topic("target", 5)
    setup = Copying(admin, bootstrap, tmp_path, target, bootstrap_servers=bootstrap, max_events=60)
    with setup.worker() as worker:
        setup.feed(events(3))
        await_records(bootstrap, target, 3)
        limit(admin, target, 2_000)
        bad = large(999, 4_000)
        setup.feed([bad, *events(30, first=100)])
        worker.await_event("sink_failed", count=2)
        limit(admin, target, 1_000_000)
        await_records(bootstrap, target, 34)
        assert worker.stop() == 0
    assert Counter(record.value for record in consume_all(bootstrap, target)) == Counter(
        [*events(3), *events(30, first=100), bad]
    )


def await_reasons(bootstrap: str, dead_letters: str, count: int) -> None:
    """Wait until there are ``count`` dead letters."""
    eventually(lambda: len(reasons(bootstrap, dead_letters)) == count)


def reasons(bootstrap: str, dead_letters: str) -> list[bytes]:
    """Return the reasons of the dead letters that are there."""
    return [dict(record.headers)["flagstream-reason"] for record in consume_all(bootstrap, dead_letters)]
