"""The enrich stage on a real Kafka: what comes out, where, and that each event does so once."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from flagstream.kafka.commit_metadata import Committed
from tests.support.kafka_records import Received, Sent, consume_all, end_offset, produce
from tests.support.running_worker import (
    RunningWorker,
    Topics,
    add_partition,
    await_records,
    configuration,
    eventually,
    make_anew,
)

ENRICH = ("--stage", "enrich")
STABLE = {"instance": "one", "static_membership": True}

# What BuiltInPartitioner.partitionForKey of kafka-clients 4.1 says for 10 partitions.
JAVA_PARTITIONS = {
    b"a": 4,
    b"u1": 4,
    b"user-42": 0,
    b"flag:new-checkout": 2,
    "Zoë".encode(): 4,
    b"14613538188334553206": 0,
    b"0123456789abcdef": 2,
    b"k k": 8,
    b"ab": 4,
    b"abc": 7,
    b"abcd": 0,
    b"\xff\x00\x80": 8,
}


def event(number: int, flag: str = "new-checkout") -> bytes:
    """A feature event that carries a number."""
    return (
        b'{"kind":"feature","userKey":"u%d","creationDate":1618228297123,"key":"%b","value":true,"n":%d}'
        % (number, flag.encode(), number)
    )


def number(record: Received) -> int:
    return int(json.loads(record.value or b"")["n"])


class Running(NamedTuple):
    """Holds a worker and its topics."""

    worker: RunningWorker
    topics: Topics
    bootstrap: str
    folder: Path

    def send(self, *records: Sent) -> None:
        """Produce to the ingest topic."""
        produce(self.bootstrap, self.topics.ingest, records)

    def came_out(self, *expected: int) -> list[Received]:
        """The records with these numbers, in the order of partitions and offsets, once all are there."""
        found: list[Received] = []

        def all_there() -> bool:
            found[:] = [r for r in consume_all(self.bootstrap, self.topics.output) if number(r) in expected]
            return len(found) >= len(expected)

        eventually(all_there)
        assert sorted(map(number, found)) == sorted(expected)
        return found


@pytest.fixture(scope="module")
def running(
    admin: AdminClient, bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Return a worker between topics of ten partitions."""
    folder = tmp_path_factory.mktemp("enrich")
    topics = Topics.create(admin, "enrich", partitions=10)
    settings = configuration(bootstrap, folder, topics, enrich={"metadata": {"region": "eu"}})
    with RunningWorker(settings, folder, arguments=ENRICH) as worker:
        worker.await_event("partitions_assigned")
        yield Running(worker, topics, bootstrap, folder)


class TestWhatComesOut:
    """Start one worker between topics of ten partitions."""

    def test_an_event_gets_what_it_lacks(self, running: Running) -> None:
        """Variation, version, source and the like are added; the time is in seconds."""
        running.send(Sent(b"k", event(100)))

        [record] = running.came_out(100)

        assert json.loads(record.value or b"") == {
            "kind": "feature",
            "contextKind": "user",
            "userKey": "u100",
            "creationDate": 1618228297,
            "key": "new-checkout",
            "variation": "on",
            "value": True,
            "default": False,
            "version": "1.4",
            "source": "PROVIDER_CACHE",
            "metadata": {"region": "eu"},
            "n": 100,
        }

    def test_events_of_untracked_flags_are_dropped(self, running: Running) -> None:
        """`trackEvents: false` drops an event; one of a flag that nobody knows comes out, as SdkDefault."""
        running.send(
            Sent(b"k", event(200, "quiet")), Sent(b"k", event(201, "unknown")), Sent(b"k", event(202))
        )

        unknown, _ = running.came_out(201, 202)

        assert json.loads(unknown.value or b"")["variation"] == "SdkDefault"
        # in one partition, in front of those that came out: so it would be there
        assert 200 not in map(number, consume_all(running.bootstrap, running.topics.output))

    def test_key_and_headers_are_kept(self, running: Running) -> None:
        """Key and headers stay byte for byte: no key, an empty key, several headers of one name, binary and
        empty ones."""
        headers = [("h", b"1"), ("h", b"\xff\x00"), ("e", b"")]
        sent = {300: (None, []), 301: (b"", []), 302: (b"\xfe", headers), 303: (None, headers)}
        running.send(*(Sent(key, event(n), list(h)) for n, (key, h) in sent.items()))

        records = running.came_out(*sent)

        assert {number(record): (record.key, record.headers) for record in records} == sent

    def test_keys_go_to_the_partitions_that_java_clients_choose(self, running: Running) -> None:
        """Records with and without headers take different ways through the producer, and both agree with
        Java."""
        records = [
            Sent(key, event(400 + 2 * index + with_headers), [("h", b"1")] if with_headers else None)
            for with_headers in (0, 1)
            for index, key in enumerate(JAVA_PARTITIONS)
        ]
        running.send(*records[: len(JAVA_PARTITIONS)])
        running.came_out(*range(400, 400 + 2 * len(JAVA_PARTITIONS), 2))
        running.send(*records[len(JAVA_PARTITIONS) :])

        found = running.came_out(*range(400, 400 + 2 * len(JAVA_PARTITIONS)))

        assert len(found) == 2 * len(JAVA_PARTITIONS)
        assert {record.key: record.partition for record in found} == JAVA_PARTITIONS

    def test_the_order_of_a_key_is_kept(self, running: Running) -> None:
        """The order holds also where only some of the key's records have headers."""
        sent = range(1000, 1600)
        running.send(
            *(Sent(b"ordered", event(n), [("h", b"1")] if n % 7 < 2 else None) for n in sent),
        )

        assert [number(record) for record in running.came_out(*sent)] == list(sent)

    def test_the_timestamp_is_the_time_of_sending(self, running: Running) -> None:
        """Retention by time counts from now on, however old the event is."""
        began = time.time() * 1000
        running.send(Sent(b"k", event(500), timestamp_ms=1_700_000_000_000))

        [record] = running.came_out(500)

        assert began - 1000 <= record.timestamp_ms <= time.time() * 1000 + 1000

    def test_the_metrics_count_each_outcome(self, running: Running) -> None:
        """Enriched, dropped and dead events are counted when their transaction is committed."""
        before = outcomes(running.worker)
        running.send(Sent(b"k", event(600)), Sent(b"k", event(601, "quiet")), Sent(b"k", b"[]"))
        running.came_out(600)

        def counted() -> bool:
            after = outcomes(running.worker)
            return {
                label: after[label] - before.get(label, 0)
                for label in after
                if after[label] != before.get(label, 0)
            } == {("enriched", ""): 1, ("dropped", "untracked"): 1, ("dead", "not_an_object"): 1}

        eventually(counted)


def outcomes(worker: RunningWorker) -> dict[tuple[str, str], float]:
    """How many events had each outcome and reason."""
    return {
        (sample.labels["outcome"], sample.labels["reason"]): sample.value
        for family in worker.metrics()
        for sample in family.samples
        if sample.name == "flagstream_enrich_events_total"
    }


def test_timestamps_are_kept_on_request(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """With `keep_timestamps` the output record has the ingest record's time, with and without headers."""
    topics = Topics.create(admin, "times")
    produce(
        bootstrap,
        topics.ingest,
        [
            Sent(b"k", event(1), timestamp_ms=1_700_000_000_001),
            Sent(b"k", event(2), [("h", b"1")], timestamp_ms=1_700_000_000_002),
        ],
    )
    settings = configuration(bootstrap, tmp_path, topics, enrich={"keep_timestamps": True})

    with RunningWorker(settings, tmp_path, arguments=ENRICH):
        records = await_records(bootstrap, topics.output, 2)

    assert [(number(record), record.timestamp_ms) for record in records] == [
        (1, 1_700_000_000_001),
        (2, 1_700_000_000_002),
    ]


class TestDeath:
    """A worker dies inside a transaction and is started again."""

    @pytest.mark.parametrize(
        ("point", "visible"),
        [("enrich.produced", 0), ("transaction.offsets_sent", 0), ("enrich.committed", 20)],
    )
    def test_each_event_comes_out_once(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path, point: str, visible: int
    ) -> None:
        """Nothing of an open transaction is visible; a restart under the same instance ends it at once (not
        after its time-out, a minute here) and does its work again, once."""
        topics = Topics.create(admin, "death", partitions=2)
        settings = configuration(
            bootstrap, tmp_path, topics, kafka=STABLE, enrich={"transaction_timeout": "60s"}
        )
        produce(bootstrap, topics.ingest, [Sent(None, event(n), partition=n % 2) for n in range(20)])

        with RunningWorker(settings, tmp_path, arguments=ENRICH, crash=f"{point}:kill") as worker:
            assert worker.wait() == -9
        seen = consume_all(bootstrap, topics.output)
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.await_event("partitions_assigned")
            records = await_records(bootstrap, topics.output, 20)
            assert worker.stop() == 0

        assert len(seen) == visible
        assert sorted(map(number, records)) == list(range(20))

    def test_an_unfinished_transaction_hides_records_that_are_there(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Killed with offsets sent but nothing committed, and with a random id: the records are in the topic,
        readers see them once, after the transaction has timed out and another process has done the work."""
        topics = Topics.create(admin, "hidden")
        settings = configuration(
            bootstrap, tmp_path, topics, kafka={"session_timeout": "6s"}, enrich={"transaction_timeout": "2s"}
        )
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(5)])

        with RunningWorker(
            settings, tmp_path, arguments=ENRICH, crash="transaction.offsets_sent:kill"
        ) as dead:
            assert dead.wait() == -9
        stored, seen = end_offset(bootstrap, topics.output), consume_all(bootstrap, topics.output)
        with RunningWorker(settings, tmp_path, arguments=ENRICH):
            records = await_records(bootstrap, topics.output, 5)

        assert (stored, seen) == (5, [])
        assert [number(record) for record in records] == list(range(5))


class TestInstances:
    """Start two processes of one worker."""

    def test_the_older_of_two_with_the_same_instance_is_fenced(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """It exits with code 3 when it next commits and asks for the other one, nothing is doubled, and the
        newer one goes on."""
        topics = Topics.create(admin, "fenced")
        settings = configuration(bootstrap, tmp_path, topics, kafka={"instance": "same"})
        with ExitStack() as stack:
            older = stack.enter_context(RunningWorker(settings, tmp_path, arguments=ENRICH))
            older.await_event("partitions_assigned")
            newer = stack.enter_context(RunningWorker(settings, tmp_path, arguments=ENRICH))
            newer.await_event("stage_started")
            produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(3)])
            assert older.wait() == 3
            reported = older.await_event("worker_failed", exit_code=3)
            records = await_records(bootstrap, topics.output, 3)
            assert newer.stop() == 0

        assert [number(record) for record in records] == [0, 1, 2]
        assert 'two processes with kafka.instance = "same"' in reported["error"]

    def test_random_instances_share_the_work(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Without an instance two processes live side by side, and a leaving one hands over at once."""
        topics = Topics.create(admin, "shared", partitions=2)
        settings = configuration(bootstrap, tmp_path, topics, kafka={"session_timeout": "30s"})
        with (
            RunningWorker(settings, tmp_path, arguments=ENRICH) as first,
            RunningWorker(settings, tmp_path, arguments=ENRICH) as second,
        ):
            for worker in (first, second):
                worker.await_event("partitions_assigned")
            eventually(lambda: holdings(first) + holdings(second) == 2 and holdings(first) == 1)
            produce(bootstrap, topics.ingest, [Sent(None, event(n), partition=n % 2) for n in range(10)])
            await_records(bootstrap, topics.output, 10)

            assert first.stop() == 0
            left = time.monotonic()
            eventually(lambda: holdings(second) == 2)
            # a rebalance, not the session time-out of half a minute
            assert time.monotonic() - left < 15
            produce(bootstrap, topics.ingest, [Sent(None, event(n), partition=n % 2) for n in range(10, 20)])
            records = await_records(bootstrap, topics.output, 20)

        assert sorted(map(number, records)) == list(range(20))


def holdings(worker: RunningWorker) -> int:
    """How many partitions a worker says it has."""
    gained = sum(len(event["partitions"]) for event in worker.seen("partitions_assigned"))
    return gained - sum(len(event["partitions"]) for event in worker.seen("partitions_revoked"))


class TestStart:
    """The settings say where reading begins in a partition for which the group has no offset."""

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            ("beginning", [0, 1, 2]),
            ((datetime.now(UTC) - timedelta(hours=1)).isoformat(), [1, 2]),
            ("latest", [2]),
        ],
        ids=["beginning", "an hour ago", "latest"],
    )
    def test_begins_where_it_is_told_to(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path, start: str, expected: list[int]
    ) -> None:
        """Reading begins at the first record, at the first one of a time, or after all that are there."""
        topics = Topics.create(admin, "start")
        day_ago = round((time.time() - 86_400) * 1000)
        minute_ago = round((time.time() - 60) * 1000)
        produce(
            bootstrap,
            topics.ingest,
            [Sent(b"k", event(0), timestamp_ms=day_ago), Sent(b"k", event(1), timestamp_ms=minute_ago)],
        )
        settings = configuration(bootstrap, tmp_path, topics, enrich={"start": start})

        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.await_event("partitions_assigned")
            produce(bootstrap, topics.ingest, [Sent(b"k", event(2))])
            records = await_records(bootstrap, topics.output, len(expected))

        assert [number(record) for record in records] == expected

    def test_latest_loses_nothing_of_a_partition_that_is_added_later(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """ "latest" is when the group began: the new partition is read from its first record, although that
        was there before the worker knew of the partition. Restarts in between forget nothing."""
        topics = Topics.create(admin, "added")
        settings = configuration(bootstrap, tmp_path, topics, enrich={"start": "latest"})
        for run in (0, 1):
            with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
                worker.await_event("partitions_assigned")
                produce(bootstrap, topics.ingest, [Sent(b"k", event(run))])
                await_records(bootstrap, topics.output, run + 1)
                assert worker.stop() == 0

        add_partition(admin, topics.ingest)
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n), partition=1) for n in (2, 3)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH):
            records = await_records(bootstrap, topics.output, 4)

        assert sorted(map(number, records)) == [0, 1, 2, 3]

    def test_a_group_that_has_forgotten_when_it_began_loses_nothing_either(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Its offsets were committed by an earlier version, without the time: what the new partition holds
        came after the group began."""
        topics = Topics.create(admin, "forgotten")
        settings = configuration(bootstrap, tmp_path, topics, enrich={"start": "latest"})
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in (0, 1)])
        Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topics.ingest}.enrich"}).commit(
            offsets=[TopicPartition(topics.ingest, 0, 1, Committed().text())], asynchronous=False
        )

        add_partition(admin, topics.ingest)
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n), partition=1) for n in (2, 3)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH):
            records = await_records(bootstrap, topics.output, 3)

        assert sorted(map(number, records)) == [1, 2, 3]


class TestTopicMadeAnew:
    """The ingest topic is deleted and created again under its name."""

    @pytest.mark.parametrize("protocol", ["classic", "consumer"])
    def test_its_events_come_out_once_also_the_first_ones(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path, protocol: str
    ) -> None:
        """The worker is not fetching while it happens, and nothing is wrong with its offset in the new topic:
        it would go on there, after the first records. Kafka deletes the group's offsets with the topic, so
        the new one is read from its beginning."""
        topics = Topics.create(admin, "anew")
        settings = configuration(bootstrap, tmp_path, topics, kafka={"group_protocol": protocol})
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(20)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            await_records(bootstrap, topics.output, 20)
            worker.send(signal.SIGSTOP)
            make_anew(admin, topics.ingest)
            produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(100, 150)])
            worker.send(signal.SIGCONT)
            records = await_records(bootstrap, topics.output, 70)
            assert worker.stop() == 0

        assert sorted(map(number, records)) == [*range(20), *range(100, 150)]

    @pytest.mark.parametrize("protocol", ["classic", "consumer"])
    def test_a_worker_that_had_read_everything_begins_the_new_one(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path, protocol: str
    ) -> None:
        """It runs all the while. The new topic ends before the offset that it would go on at, which looks as
        if records were missing: they are others now, and all of them are read."""
        topics = Topics.create(admin, "anew")
        settings = configuration(bootstrap, tmp_path, topics, kafka={"group_protocol": protocol})
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(20)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            await_records(bootstrap, topics.output, 20)
            make_anew(admin, topics.ingest)
            produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(100, 105)])
            records = await_records(bootstrap, topics.output, 25)
            produce(bootstrap, topics.ingest, [Sent(b"k", event(105))])
            records = await_records(bootstrap, topics.output, 26)
            worker.healthy()
            assert worker.stop() == 0

        assert sorted(map(number, records)) == [*range(20), *range(100, 106)]

    def test_an_offset_that_belongs_to_the_old_one_stops_the_partition(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Somebody has restored the group's offsets, with what stood beside them: they mean other records."""
        topics = Topics.create(admin, "anew")
        settings = configuration(bootstrap, tmp_path, topics)
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(5)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            await_records(bootstrap, topics.output, 5)
            assert worker.stop() == 0
        group = f"{topics.ingest}.enrich"
        at = ConsumerGroupTopicPartitions(group, [TopicPartition(topics.ingest, 0)])
        [before] = admin.list_consumer_group_offsets([at])[group].result(30).topic_partitions
        make_anew(admin, topics.ingest)
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(100, 110)])
        Consumer({"bootstrap.servers": bootstrap, "group.id": group}).commit(
            offsets=[TopicPartition(topics.ingest, 0, before.offset, before.metadata)], asynchronous=False
        )

        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            stopped = worker.await_event("partition_stopped")
            worker.await_problem(lambda problems: "was recreated" in str(problems))
            assert worker.stop() == 0
        assert group in str(stopped["ways_out"])
        assert len(consume_all(bootstrap, topics.output)) == 5


class TestDeletedRecords:
    """Ingest records were deleted before they were read."""

    def test_the_partition_stops_or_goes_on_as_configured(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """It stops and /health says why, while other partitions go on; with `continue` it goes on after the
        hole, which is logged."""
        topics = Topics.create(admin, "deleted", partitions=2)
        settings = configuration(bootstrap, tmp_path, topics, kafka=STABLE)
        produce(bootstrap, topics.ingest, [Sent(None, event(0), partition=0)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            await_records(bootstrap, topics.output, 1)
            assert worker.stop() == 0
        produce(bootstrap, topics.ingest, [Sent(None, event(n), partition=0) for n in range(1, 6)])
        produce(bootstrap, topics.ingest, [Sent(None, event(6), partition=1)])
        hole = TopicPartition(topics.ingest, 0, 4)
        admin.delete_records([hole])[hole].result(30)

        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            problems = worker.await_problem(lambda problems: "deleted before" in str(problems))
            worker.await_event("partition_stopped")
            await_records(bootstrap, topics.output, 2)
            assert worker.stop() == 0
        goes_on: dict[str, Any] = {**settings, "enrich": {"on_missing_records": "continue"}}
        with RunningWorker(goes_on, tmp_path, arguments=ENRICH) as worker:
            records = await_records(bootstrap, topics.output, 4)
            worker.await_event("records_missing", continues_at=4)
            worker.healthy()

        [problem] = problems["enrich"]
        assert f"{topics.ingest}-0" in problem
        assert "deleted before they were read" in problem
        assert sorted(map(number, records)) == [0, 4, 5, 6]

    def test_what_was_read_before_comes_out(self, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
        """The worker holds the last copy of what it has read: with `continue` it commits that before it goes
        on after the hole."""
        topics = Topics.create(admin, "overtaken")
        enrich = {"commit_interval": "5s", "on_missing_records": "continue", "transaction_timeout": "60s"}
        settings = configuration(bootstrap, tmp_path, topics, kafka={"session_timeout": "60s"}, enrich=enrich)
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(100)])
        with RunningWorker(settings, tmp_path, arguments=ENRICH, crash="enrich.produced:freeze") as worker:
            eventually(lambda: worker.frozen)
            produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(100, 200)])
            hole = TopicPartition(topics.ingest, 0, 150)
            admin.delete_records([hole])[hole].result(30)
            worker.send(signal.SIGCONT)
            worker.await_event("records_missing", continues_at=150)
            records = await_records(bootstrap, topics.output, 150)
            assert worker.stop() == 0

        assert sorted(map(number, records)) == [*range(100), *range(150, 200)]


class TestFlags:
    """The flag file changes, breaks or is missing."""

    def test_a_changed_file_is_used_and_a_broken_one_is_not(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """A broken file leaves the flags as they were, and log, metric and /health say so."""
        topics = Topics.create(admin, "flags")
        running = Running(
            RunningWorker(configuration(bootstrap, tmp_path, topics), tmp_path, arguments=ENRICH),
            topics,
            bootstrap,
            tmp_path,
        )
        flags = tmp_path / "flags.yaml"
        with running.worker as worker:
            worker.await_event("flags_loaded", flags=3)
            flags.write_text(flags.read_text().replace('"1.4"', '"2.0"') + "\nmore: {variations: {a: 1}}\n")
            worker.await_event("flags_loaded", flags=4)
            running.send(Sent(b"k", event(0)))
            flags.write_text("new-checkout: {variations: [")
            unreadable = worker.await_event("flags_unreadable")
            problems = worker.await_problem(lambda problems: problems.get("enrich"))
            assert worker.get("/ready")[0] == 200
            running.send(Sent(b"k", event(1)))

            versions = [json.loads(record.value or b"")["version"] for record in running.came_out(0, 1)]
            failures = [
                sample.value
                for family in worker.metrics()
                for sample in family.samples
                if sample.name == "flagstream_flag_load_failures_total"
            ]

        assert versions == ["2.0", "2.0"]
        assert failures == [1]
        assert str(flags) in unreadable["error"]
        assert unreadable["error"] in problems["enrich"][0]

    def test_nothing_is_consumed_before_there_are_flags(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """Without readable flags the worker is unready and says why; when the file appears it begins."""
        topics = Topics.create(admin, "flagless")
        settings = configuration(bootstrap, tmp_path, topics)
        flags = tmp_path / "flags.yaml"
        content = flags.read_text()
        flags.unlink()
        produce(bootstrap, topics.ingest, [Sent(b"k", event(0)), Sent(b"k", event(1, "quiet"))])

        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            problems = worker.await_problem(
                lambda problems: problems.get("enrich") not in (None, ["starting"])
            )
            assert worker.get("/live")[0] == 200
            worker.await_event("stage_waits")
            assert worker.seen("partitions_assigned") == []
            flags.write_text(content)
            records = await_records(bootstrap, topics.output, 1)
            worker.healthy()

        assert str(flags) in problems["enrich"][0]
        assert [number(record) for record in records] == [0]
