"""Workers whose transactions Kafka refuses, for rights that are missing and ids that expire, say so and go
on.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from flagstream.cli import cli
from tests.kafka.test_enrich import event, number
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_records import Sent, consume_all, produce
from tests.support.running_worker import (
    Configuration,
    RunningWorker,
    Topics,
    await_records,
    configuration,
    eventually,
    to_toml,
)

EXPIRES, CLEANUP = 2.0, 0.5
ANY, USER = "*", "User:worker"
SASL = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "worker",
    "sasl.password": "secret",
}


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    """A broker that looks at rights, and forgets transactional ids after two seconds of rest."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "transactional.id.expiration.ms": f"{EXPIRES * 1000:.0f}",
        "transaction.remove.expired.transaction.cleanup.interval.ms": f"{CLEANUP * 1000:.0f}",
    }
    with KafkaBroker(properties, sasl_users={"worker": "secret"}) as started:
        yield started


@pytest.fixture(scope="module")
def boss(broker: KafkaBroker) -> AdminClient:
    """An admin client that may do anything."""
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers})


def allowed(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    pattern = ResourcePatternType.LITERAL
    return AclBinding(kind, name, pattern, USER, ANY, operation, AclPermissionType.ALLOW)


def filter_of(right: AclBinding) -> AclBindingFilter:
    """What matches that right alone."""
    return AclBindingFilter(
        right.restype,
        right.name,
        right.resource_pattern_type,
        right.principal,
        right.host,
        right.operation,
        right.permission_type,
    )


def grant(boss: AdminClient, *rights: AclBinding) -> None:
    for answer in boss.create_acls(list(rights)).values():
        answer.result(10)


@pytest.fixture
def restricted(broker: KafkaBroker, boss: AdminClient) -> Iterator[Callable[[Topics], None]]:
    """Gives the worker all that it needs, but for Write on its topics; taken away after the test."""

    def give(topics: Topics) -> None:
        grant(
            boss,
            allowed(ResourceType.GROUP, ANY, AclOperation.READ),
            allowed(ResourceType.TRANSACTIONAL_ID, ANY, AclOperation.ALL),
            *(allowed(ResourceType.TOPIC, topic, AclOperation.READ) for topic in topics),
        )

    yield give
    everything = AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]  # None matches any, which its stubs do not say
        ResourcePatternType.ANY,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for answer in boss.delete_acls([everything]).values():
        answer.result(10)


def as_worker(broker: KafkaBroker, folder: Path, topics: Topics, **sections: Any) -> Configuration:
    """A configuration that logs in as the user with few rights."""
    return configuration(
        broker.sasl_bootstrap_servers, folder, topics, kafka={"properties": SASL}, **sections
    )


def no_transaction_fails(worker: RunningWorker) -> None:
    """Wait until nothing is wrong but that records have become dead letters."""
    worker.await_problem(lambda found: "transaction" not in str(found))


class TestRights:
    """Rights that are missing, and are given while the worker waits."""

    def test_write_on_the_output_topic(
        self,
        broker: KafkaBroker,
        boss: AdminClient,
        restricted: Callable[[Topics], None],
        tmp_path: Path,
    ) -> None:
        """The problem names the right and the topic, although the abort fails with another error; the process
        goes on, without a flood of lines, and commits once the right is there."""
        topics = Topics.create(boss, "unwritable")
        restricted(topics)
        produce(broker.bootstrap_servers, topics.ingest, [Sent(b"k", event(n)) for n in range(3)])

        with RunningWorker(
            as_worker(broker, tmp_path, topics), tmp_path, arguments=["--stage", "enrich"]
        ) as worker:
            worker.await_problem(lambda found: f"WRITE) to {topics.output}" in str(found), timeout=15)
            assert len(worker.seen("transaction_aborted")) < 10
            grant(boss, allowed(ResourceType.TOPIC, topics.output, AclOperation.WRITE))
            await_records(broker.bootstrap_servers, topics.output, 3)
            worker.healthy()
            assert worker.stop() == 0

    def test_the_transactional_id(
        self,
        broker: KafkaBroker,
        boss: AdminClient,
        restricted: Callable[[Topics], None],
        tmp_path: Path,
    ) -> None:
        """It is waited for at the start, with the reason on the page."""
        topics = Topics.create(boss, "anonymous")
        grant(
            boss,
            allowed(ResourceType.GROUP, ANY, AclOperation.READ),
            *(allowed(ResourceType.TOPIC, topic, AclOperation.ALL) for topic in topics),
        )
        produce(broker.bootstrap_servers, topics.ingest, [Sent(b"k", event(1))])

        with RunningWorker(
            as_worker(broker, tmp_path, topics), tmp_path, arguments=["--stage", "enrich"]
        ) as worker:
            worker.await_problem(lambda found: "may not use the transactional.id" in str(found), timeout=15)
            grant(boss, allowed(ResourceType.TRANSACTIONAL_ID, ANY, AclOperation.ALL))
            await_records(broker.bootstrap_servers, topics.output, 1)
            assert worker.stop() == 0

    def test_the_transactional_id_of_a_sink(
        self,
        broker: KafkaBroker,
        boss: AdminClient,
        restricted: Callable[[Topics], None],
        tmp_path: Path,
    ) -> None:
        """The sink joins its group all the same, so a rollout goes on, and its problem is on the page."""
        topics = Topics.create(boss, "nobody")
        target = Topics.create(boss, "nobody.target").output
        grant(
            boss,
            allowed(ResourceType.GROUP, ANY, AclOperation.READ),
            *(allowed(ResourceType.TOPIC, topic, AclOperation.ALL) for topic in (*topics, target)),
        )
        produce(broker.bootstrap_servers, topics.output, [Sent(b"k", event(1))])
        settings = as_worker(broker, tmp_path, topics, sinks={"copy": {"type": "kafka", "topic": target}})

        with RunningWorker(settings, tmp_path, arguments=["--sink", "copy"]) as worker:
            worker.await_event("partitions_assigned")
            worker.await_problem(lambda found: "may not use the transactional.id" in str(found), timeout=15)
            assert worker.ready()
            grant(boss, allowed(ResourceType.TRANSACTIONAL_ID, ANY, AclOperation.ALL))
            await_records(broker.bootstrap_servers, target, 1)
            worker.healthy()
            assert worker.stop() == 0


class TestExpiry:
    """The brokers forget a transactional id that rests."""

    def test_every_producer_goes_on(self, broker: KafkaBroker, boss: AdminClient, tmp_path: Path) -> None:
        """The enrich stage's, that of a sink's dead letters, and a Kafka sink's: each has rested too long
        when the second event comes."""
        topics = Topics.create(boss, "rested")
        target = Topics.create(boss, "rested.target").output
        sinks = {
            "copy": {"type": "kafka", "topic": target, "flush_interval": "100ms"},
            "web": {
                "type": "file",
                "path": str(tmp_path / "archive"),
                "format": "avro",
                "flush_interval": "100ms",
            },
        }
        settings = configuration(broker.bootstrap_servers, tmp_path, topics, sinks=sinks)

        def send(number: int) -> None:
            # what no sink can hold becomes one dead letter of each
            produce(broker.bootstrap_servers, topics.output, [Sent(b"k", b"no event %d" % number)])
            produce(broker.bootstrap_servers, topics.ingest, [Sent(b"k", event(number))])

        with RunningWorker(settings, tmp_path) as worker:
            send(1)
            await_records(broker.bootstrap_servers, target, 1)
            await_records(broker.bootstrap_servers, topics.dead_letters, 2)
            time.sleep(EXPIRES + 3 * CLEANUP)  # on the broker's clock: nothing shows when it is over
            send(2)
            await_records(broker.bootstrap_servers, target, 2)
            await_records(broker.bootstrap_servers, topics.dead_letters, 4)
            no_transaction_fails(worker)
            assert worker.seen("producer_abandoned")
            assert worker.stop() == 0


class TestRefusedRecords:
    """The output topic refuses one of the records that are enriched together."""

    def test_it_becomes_a_dead_letter_and_the_others_go_on(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Times beyond the topic's limit, back and ahead, between good records of two partitions."""
        limits = {"message.timestamp.before.max.ms": "3600000", "message.timestamp.after.max.ms": "3600000"}
        anything = {"message.timestamp.after.max.ms": str(2**63 - 1)}
        topics = Topics.create(admin, "untimely", 2, ingest=anything, output=limits)
        now = round(time.time() * 1000)
        times = {7: now - 48 * 3_600_000, 8: now - 2 * 3_600_000, 13: now + 2 * 3_600_000}
        records = [Sent(b"k%d" % n, event(n), None, n % 2, times.get(n, now)) for n in range(20)]
        produce(bootstrap, topics.ingest, records)
        settings = configuration(bootstrap, tmp_path, topics, enrich={"keep_timestamps": True})

        with RunningWorker(settings, tmp_path, arguments=["--stage", "enrich"]) as worker:
            good = await_records(bootstrap, topics.output, 17)
            dead = await_records(bootstrap, topics.dead_letters, 3)
            no_transaction_fails(worker)
            assert worker.stop() == 0

        assert {number(record) for record in good} == set(range(20)) - times.keys()
        assert {record.key for record in dead} == {b"k%d" % n for n in times}
        assert {dict(record.headers)["flagstream-reason"] for record in dead} == {b"refused_by_topic"}
        assert all(b"INVALID_TIMESTAMP" in dict(record.headers)["flagstream-error"] for record in dead)


class TestDeletedTopics:
    """A topic that a worker writes to is deleted under it."""

    @pytest.mark.parametrize("role", ["output", "dead_letters"])
    def test_it_is_said_within_seconds_and_the_worker_goes_on(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path, role: str
    ) -> None:
        """Its name is on the page; when it is there again, so are the records, each once. The process stays
        the same."""
        topics = Topics.create(admin, "deleted")
        settings = configuration(bootstrap, tmp_path, topics)
        value = event if role == "output" else lambda number: b"no event %d" % number
        topic = getattr(topics, role)

        with RunningWorker(settings, tmp_path, arguments=["--stage", "enrich"]) as worker:
            produce(bootstrap, topics.ingest, [Sent(b"k", value(1))])
            await_records(bootstrap, topic, 1)
            admin.delete_topics([topic])[topic].result(timeout=20)
            eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
            produce(bootstrap, topics.ingest, [Sent(b"k", value(2))])
            worker.await_problem(lambda found: topic in str(found), timeout=10)
            admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=20)
            await_records(bootstrap, topic, 1, timeout=60)
            no_transaction_fails(worker)
            assert worker.stop() == 0


def test_records_behind_an_open_transaction_are_told(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Somebody's transaction in the ingest topic keeps 20 records back: page and log say how many, where and
    since when, until it ends."""
    topics = Topics.create(admin, "held.back")
    somebody = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": topics.ingest, "transaction.timeout.ms": 60_000}
    )
    somebody.init_transactions(30)
    somebody.begin_transaction()
    somebody.produce(topics.ingest, event(0))
    somebody.flush(30)
    produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(1, 20)])

    settings = configuration(bootstrap, tmp_path, topics)
    with RunningWorker(settings, tmp_path, arguments=["--stage", "enrich"]) as worker:
        reported = f"20 records wait behind an open transaction of {topics.ingest}-0 since 20"
        worker.await_problem(lambda found: reported in str(found))
        worker.await_event("open_transaction")
        somebody.commit_transaction(30)
        await_records(bootstrap, topics.output, 20)
        worker.await_event("open_transaction_ended")
        worker.healthy()
        assert worker.stop() == 0


def test_check_proves_the_rights(
    broker: KafkaBroker, boss: AdminClient, restricted: Callable[[Topics], None], tmp_path: Path
) -> None:
    """Write on each topic that is written to, Read on those that are read and on the groups: what is missing
    fails by its name, before a worker runs."""
    topics = Topics.create(boss, "asked")
    restricted(topics)
    grant(boss, allowed(ResourceType.TOPIC, topics.dead_letters, AclOperation.WRITE))
    file = tmp_path / "flagstream.toml"
    file.write_text(to_toml(as_worker(broker, tmp_path, topics, sinks={"out": {"type": "log"}})))

    def reported() -> list[str]:
        result = CliRunner().invoke(cli, ["check", "-c", str(file)])
        return [line.strip() for line in result.output.splitlines() if "rights to" in line]

    before = reported()
    grant(boss, allowed(ResourceType.TOPIC, topics.output, AclOperation.WRITE))
    eventually(lambda: not any("FAILED" in line for line in reported()))

    name = topics.ingest
    assert [line for line in before if line.startswith("ok")] == [
        f"ok        rights to {topics.dead_letters}: WRITE",
        f"ok        rights to {name}: READ",
        f"ok        rights to group {name}.enrich: READ",
        f"ok        rights to group {name}.sink.out: READ",
    ]
    assert [line for line in before if line.startswith("FAILED")] == [
        f"FAILED    rights to {topics.output}: this user lacks WRITE; grant it"
    ]


def test_write_in_another_cluster_that_is_given_back(
    broker: KafkaBroker,
    boss: AdminClient,
    restricted: Callable[[Topics], None],
    admin: AdminClient,
    bootstrap: str,
    tmp_path: Path,
) -> None:
    """A Kafka sink to another cluster loses the right to write for some tries: it is reported at once, as
    that; none of its events becomes a dead letter, and all arrive when the right is back.
    """
    target = f"target-{uuid.uuid4().hex[:8]}"
    boss.create_topics([NewTopic(target, 1, 1)])[target].result(30)
    write = allowed(ResourceType.TOPIC, target, AclOperation.WRITE)
    grant(boss, allowed(ResourceType.TOPIC, target, AclOperation.DESCRIBE), write)
    topics = Topics.create(admin, "elsewhere")
    sink = {
        "type": "kafka",
        "topic": target,
        "bootstrap_servers": broker.sasl_bootstrap_servers,
        "properties": SASL,
        "max_events": 20,
        "flush_interval": "300ms",
        "on_refused": "dead_letter",
    }
    config = configuration(bootstrap, tmp_path, topics, sinks={"copy": sink})
    values = [event(number) for number in range(60)]
    with RunningWorker(config, tmp_path, arguments=("--sink", "copy")) as worker:
        worker.healthy()
        for answer in boss.delete_acls([filter_of(write)]).values():
            answer.result(10)
        produce(bootstrap, topics.output, [Sent(b"key", value) for value in values])
        eventually(lambda: len(worker.seen("sink_failed", kind="refused")) >= 4)
        assert {one["kind"] for one in worker.seen("sink_failed")} == {"refused"}
        grant(boss, write)
        found = await_records(broker.bootstrap_servers, target, 60)
        worker.healthy()
        assert worker.stop() == 0
    assert {record.value for record in found} >= set(values)
    assert consume_all(bootstrap, topics.dead_letters) == []
