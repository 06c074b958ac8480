"""The process from start to end: what it waits for, what it says of that, how it stops."""

import gzip
import json
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGTERM

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from flagstream.kafka.consumer import STATISTICS_MILLISECONDS
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_records import Sent, consume_all, end_offset, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration, eventually

ENRICH = ("--stage", "enrich")
LONG_TRANSACTIONS = {"commit_interval": "2m", "transaction_timeout": "5m"}
IMPATIENT = {"socket.timeout.ms": 2_000, "api.version.request.timeout.ms": 1_000}
"""A broker that does not answer is noticed within seconds."""
PASSWORD = "correct-horse-battery"


def event(number: int) -> bytes:
    """A feature event that carries a number."""
    return (
        b'{"kind":"feature","userKey":"u%d","creationDate":1618228297,"key":"new-checkout","value":true,"n":%d}'
        % (number, number)
    )


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    """A broker that tests of this module stop, freeze and log in to; each leaves it running."""
    with KafkaBroker(sasl_users={"alice": PASSWORD}) as running:
        yield running


@contextmanager
def absent(broker: KafkaBroker) -> Iterator[None]:
    """Stopped for the time of the `with`."""
    broker.stop()
    try:
        yield
    finally:
        broker.start()


@contextmanager
def frozen(broker: KafkaBroker) -> Iterator[None]:
    """Freeze the broker for the time of the `with`."""
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()


class TestWaiting:
    """What is missing at the start is named, waited for and then used."""

    def test_missing_topics(self, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
        """Log and /health name the topics and what to do; once they are there the worker begins."""
        there = Topics.create(admin, "waiting")
        topics = there._replace(output=f"{there.output}.late", dead_letters=f"{there.dead_letters}.late")
        produce(bootstrap, topics.ingest, [Sent(b"k", event(0))])

        with RunningWorker(configuration(bootstrap, tmp_path, topics), tmp_path, arguments=ENRICH) as worker:
            problems = worker.await_problem(lambda problems: "missing" in str(problems))
            logged = worker.await_event("stage_waits")
            assert worker.seen("partitions_assigned") == []
            for name in topics[1:]:
                admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
            await_records(bootstrap, topics.output, 1)
            worker.healthy()

        [problem] = problems["enrich"]
        assert f"{topics.output} (topics.output)" in problem
        assert f"{topics.dead_letters} (topics.dead_letters)" in problem
        assert topics.ingest + " " not in problem
        assert "topics.create = true" in problem
        assert logged["reason"] == problem

    def test_missing_topics_are_created_if_so_configured(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """The topics get as many partitions as the settings say, the dead letters one;"""
        name = Topics.create(admin, "created").ingest
        topics = Topics(f"{name}.in", f"{name}.out", f"{name}.dead")
        settings = configuration(bootstrap, tmp_path, topics)
        settings["topics"] |= {"create": True, "partitions": 3}

        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.await_event("partitions_assigned", partitions=[0, 1, 2])
            produce(bootstrap, topics.ingest, [Sent(b"k", event(0))])
            await_records(bootstrap, topics.output, 1)
            created = {line["topic"]: line["partitions"] for line in worker.seen("topic_created")}
            unseen = [*worker.seen("topic_settings_unseen"), *worker.seen("topic_id_unseen")]

        assert created == dict(zip(topics, [3, 3, 1], strict=True))
        assert unseen == []
        known = admin.list_topics(timeout=10).topics
        assert [len(known[name].partitions) for name in topics] == [3, 3, 1]

    def test_no_broker(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """Log and /health say that none answers, the process lives; when one appears the worker begins."""
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        topics = Topics.create(admin, "brokerless")
        produce(broker.bootstrap_servers, topics.ingest, [Sent(b"k", event(0))])
        settings = configuration(broker.bootstrap_servers, tmp_path, topics)
        with ExitStack() as stack:
            with absent(broker):
                worker = stack.enter_context(RunningWorker(settings, tmp_path, arguments=ENRICH))
                problems = worker.await_problem(lambda problems: "no broker" in str(problems))
                assert worker.get("/live")[0] == 200
            await_records(broker.bootstrap_servers, topics.output, 1)
            worker.healthy()

        assert "kafka.bootstrap_servers" in problems["enrich"][0]

    def test_a_killed_worker_is_waited_for(self, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
        """The one that takes its place is not ready until the group has taken it in, which it does when the
        session of the dead one has ended. Log, /health and a metric say so meanwhile."""
        topics = Topics.create(admin, "killed", partitions=2)
        settings = configuration(bootstrap, tmp_path, topics, kafka={"session_timeout": "12s"})
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.await_event("partitions_assigned")
            worker.kill()
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            waiting = worker.await_problem(lambda problems: "waits for the group" in str(problems))
            logged = worker.await_event("holds_no_partitions")
            assert worker.seen("partitions_assigned") == []
            assert assigned(worker) == {"enrich": 0}
            worker.await_event("partitions_assigned")
            worker.healthy()
            assert assigned(worker) == {"enrich": 2}

        assert waiting == {"enrich": [logged["reason"]]}

    def test_a_member_without_partitions_is_ready(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path
    ) -> None:
        """One worker too many is well; that it has nothing to do is in the log."""
        topics = Topics.create(admin, "idle", partitions=1)
        settings = configuration(bootstrap, tmp_path, topics)
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as busy:
            busy.await_event("partitions_assigned")
            with RunningWorker(settings, tmp_path, arguments=ENRICH) as idle:
                reason = idle.await_event("holds_no_partitions")["reason"]
                idle.healthy()
                assert sum(assigned(worker)["enrich"] for worker in (busy, idle)) == 1

        assert reason.startswith(("other members", "waits for the group"))  # before the first statistics

    def test_sigterm_ends_the_waiting(self, bootstrap: str, tmp_path: Path) -> None:
        """A worker that waits for topics can be stopped like any other: exit code 0, at once."""
        topics = Topics("never-created.in", "never-created.out", "never-created.dead")
        with RunningWorker(configuration(bootstrap, tmp_path, topics), tmp_path, arguments=ENRICH) as worker:
            worker.await_event("stage_waits")
            assert worker.stop(timeout=10) == 0


class TestRefusing:
    """What no waiting will mend ends the process with exit code 2."""

    def test_a_compacted_output_topic(self, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
        """It would delete events that have a key; the message names topic and setting."""
        topics = Topics.create(admin, "compacted", output={"cleanup.policy": "compact,delete"})
        with RunningWorker(configuration(bootstrap, tmp_path, topics), tmp_path, arguments=ENRICH) as worker:
            assert worker.wait() == 2
            failure = worker.await_event("worker_failed", exit_code=2)

        assert topics.output in failure["error"]
        assert "cleanup.policy" in failure["error"]

    def test_a_bad_configuration_touches_no_broker(self, tmp_path: Path) -> None:
        """The mistakes are on standard error; nobody has tried to connect."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            settings = configuration(
                address,
                tmp_path,
                Topics("a", "b", "c"),
                enrich={"commit_interval": "soon", "strat": "latest"},
            )
            with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
                assert worker.wait() == 2
                reported = worker.log
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()

        assert "2 problems" in reported
        assert "enrich.commit_interval" in reported
        assert "enrich.strat" in reported

    def test_a_web_port_that_is_taken(self, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
        """The message names the setting and the address."""
        topics = Topics.create(admin, "port")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            settings = configuration(bootstrap, tmp_path, topics, web={"port": port})
            with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
                assert worker.wait() == 2
                failure = worker.await_event("worker_failed", exit_code=2)

        assert "web.port" in failure["error"]
        assert f"127.0.0.1:{port}" in failure["error"]


class TestStopping:
    """The worker stops on SIGTERM."""

    @pytest.mark.parametrize("protocol", ["classic", "consumer"])
    def test_what_is_under_way_is_committed(
        self, admin: AdminClient, bootstrap: str, tmp_path: Path, protocol: str
    ) -> None:
        """An open transaction is not left to its time-out; the exit code is 0, the group is empty at once."""
        topics = Topics.create(admin, f"stopping-{protocol}")
        settings = configuration(
            bootstrap,
            tmp_path,
            topics,
            kafka={"group_protocol": protocol},
            enrich=LONG_TRANSACTIONS,
        )
        produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(10)])

        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            eventually(lambda: end_offset(bootstrap, topics.output) == 10)
            seen_before = consume_all(bootstrap, topics.output)
            assert worker.stop() == 0
            assert worker.events[-1]["event"] == "worker_stopped"

        group = f"{settings['name']}.enrich"
        assert seen_before == []
        assert len(consume_all(bootstrap, topics.output)) == 10
        assert admin.describe_consumer_groups([group])[group].result(10).members == []

    def test_a_second_sigterm_ends_it_at_once(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """While it waits for a broker that does not answer; the exit code is that of the signal."""
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        topics = Topics.create(admin, "twice")
        settings = configuration(broker.bootstrap_servers, tmp_path, topics, enrich=LONG_TRANSACTIONS)
        produce(broker.bootstrap_servers, topics.ingest, [Sent(b"k", event(0))])
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            eventually(lambda: end_offset(broker.bootstrap_servers, topics.output) == 1)
            with frozen(broker):
                worker.send(SIGTERM)
                worker.await_event("worker_stopping")
                assert worker.stop(timeout=5) == 128 + SIGTERM


@contextmanager
def stream(bootstrap: str, topic: str, partitions: int) -> Iterator[list[int]]:
    """Numbered events, some hundred a second, for the time of the `with`; the list holds those sent."""
    sent: list[int] = []
    done = threading.Event()

    def send() -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
        while not done.wait(0.01):
            for _ in range(5):
                producer.produce(topic, event(len(sent)), partition=len(sent) % partitions)
                sent.append(len(sent))
            producer.poll(0)
        assert producer.flush(60) == 0

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        done.set()
        thread.join()


class TestBrokerTrouble:
    """The broker goes away for a while, in the middle of a stream of events, with both stages at work."""

    @pytest.mark.parametrize("trouble", ["restart", "freeze"])
    def test_nothing_is_lost_or_doubled(self, broker: KafkaBroker, tmp_path: Path, trouble: str) -> None:
        """Restarted, or silent for longer than requests may take and members may be absent: the worker says
        so, goes on by itself, and each event is once in the output topic and once in the files."""
        bootstrap = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": bootstrap})
        topics = Topics.create(admin, trouble, partitions=2)
        archive = tmp_path / "archive"
        settings = configuration(
            bootstrap,
            tmp_path,
            topics,
            enrich={"transaction_timeout": "60s"},
            sinks={"archive": {"type": "file", "path": str(archive), "flush_interval": "300ms"}},
        )
        with RunningWorker(settings, tmp_path) as worker:
            worker.await_event("partitions_assigned", source="enrich")
            with stream(bootstrap, topics.ingest, 2) as sent:
                worker.await_event("window_delivered", count=2)
                if trouble == "restart":
                    with absent(broker):
                        worker.await_event("kafka_error")
                else:
                    with frozen(broker):
                        worker.await_event("transaction_retried", count=2)
                delivered = len(worker.seen("window_delivered"))
                worker.await_event("window_delivered", count=delivered + 4, timeout=60)
            output = await_records(bootstrap, topics.output, len(sent), timeout=60)
            eventually(lambda: len(archived(archive)) >= len(sent), timeout=60)
            worker.healthy()
            assert worker.stop() == 0

        expected = Counter(sent)
        assert Counter(json.loads(record.value or b"")["n"] for record in output) == expected
        assert Counter(archived(archive)) == expected

    def test_a_frozen_broker_is_named(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """Its connections stand, so librdkafka reports nothing for half a minute. The session ends before:
        that the group has no answer either is not reported as if the worker waited for another member."""
        bootstrap = broker.bootstrap_servers
        topics = Topics.create(AdminClient({"bootstrap.servers": bootstrap}), "silent")
        settings = configuration(bootstrap, tmp_path, topics)
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.healthy()
            with frozen(broker):
                logged = worker.await_event("broker_silent", timeout=15)
                assert "no answer for" in str(worker.problems()["enrich"])
                assert worker.value("flagstream_problems", source="enrich", kind="kafka") == 1
            worker.healthy()

        assert bootstrap in logged["problem"]
        assert "look whether the broker is frozen" in logged["problem"]

    def test_a_frozen_broker_has_not_recovered(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """Its connections are made, and the group's session has not ended: still the worker is not ready
        until it answers, and until then no line says that it does, and no old lag stands for a true one."""
        bootstrap = broker.bootstrap_servers
        topics = Topics.create(AdminClient({"bootstrap.servers": bootstrap}), "frozen")
        kafka = {"session_timeout": "40s", "consumer_properties": IMPATIENT}
        settings = configuration(bootstrap, tmp_path, topics, kafka=kafka)
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.healthy()
            # On a busy machine the impatient client can have met an error while it started. That was logged,
            # so the same error is not logged again for a minute, and neither is its end.
            before = len(worker.seen("kafka_recovered"))
            with frozen(broker):
                worker.await_problem(lambda problems: "retried until" in str(problems))
                for_certain(lambda: bool(worker.problems()), STATISTICS_SECONDS)
                eventually(lambda: math.isnan(worker.value("flagstream_lag_records")))
                assert worker.value("flagstream_problems", source="enrich", kind="kafka") == 1
                assert len(worker.seen("kafka_recovered")) == before
            worker.await_event("kafka_recovered")
            worker.healthy()
            eventually(lambda: worker.value("flagstream_lag_records") == 0)

    def test_a_deleted_topic_has_not_recovered(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """The group does not mind, and librdkafka reports it once: the worker is not ready until the topic is
        there again."""
        bootstrap = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": bootstrap})
        topics = Topics.create(admin, "gone")
        kafka = {"consumer_properties": {"topic.metadata.propagation.max.ms": 1_000}}
        settings = configuration(bootstrap, tmp_path, topics, kafka=kafka)
        with RunningWorker(settings, tmp_path, arguments=ENRICH) as worker:
            worker.healthy()
            admin.delete_topics([topics.ingest])[topics.ingest].result(30)
            worker.await_problem(
                lambda problems: f"the topic {topics.ingest} does not exist" in str(problems)
            )
            for_certain(
                lambda: f"the topic {topics.ingest} does not exist" in str(worker.problems()),
                STATISTICS_SECONDS,
            )
            assert worker.seen("kafka_recovered") == []
            admin.create_topics([NewTopic(topics.ingest, 1, 1)])[topics.ingest].result(30)
            worker.await_event("kafka_recovered")
            worker.healthy()


STATISTICS_SECONDS = 2 * STATISTICS_MILLISECONDS / 1000
"""In which librdkafka surely has reported."""


def for_certain(holds: Callable[[], bool], seconds: float) -> None:
    """Look all the while whether it holds: nothing can be waited for where nothing may happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds()
        time.sleep(0.2)


def assigned(worker: RunningWorker) -> dict[str, float]:
    """How many partitions each of its consumers holds."""
    return {
        sample.labels["source"]: sample.value
        for family in worker.metrics()
        for sample in family.samples
        if sample.name == "flagstream_assigned_partitions"
    }


def archived(folder: Path) -> list[int]:
    """Return the numbers of all events in the files."""
    return [
        json.loads(line)["n"]
        for file in folder.rglob("*.gz")
        for line in gzip.decompress(file.read_bytes()).splitlines()
    ]


class TestPasswords:
    """The worker authenticates with SASL."""

    def settings(self, broker: KafkaBroker, folder: Path, password: str) -> RunningWorker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        properties = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": password,
        }
        settings = configuration(
            broker.sasl_bootstrap_servers,
            folder,
            Topics.create(admin, "sasl"),
            kafka={"properties": properties},
            log={"level": "debug"},
        )
        return RunningWorker(settings, folder, arguments=ENRICH)

    def test_the_right_one_opens(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """Consumer, producer and admin client all log in; the log does not hold the password."""
        with self.settings(broker, tmp_path, PASSWORD) as worker:
            topics = Topics(**worker.config["topics"])
            produce(broker.bootstrap_servers, topics.ingest, [Sent(b"k", event(0))])
            await_records(broker.bootstrap_servers, topics.output, 1)
            assert worker.stop() == 0
            assert PASSWORD not in worker.log

    def test_a_wrong_one_is_told(self, broker: KafkaBroker, tmp_path: Path) -> None:
        """Log and /health speak of authentication, not of a broker that does not answer; neither holds the
        password."""
        with self.settings(broker, tmp_path, "wrong-" + PASSWORD) as worker:
            problems = worker.await_problem(
                lambda problems: problems.get("enrich") not in (None, ["starting"]), timeout=30
            )
            worker.await_problem(lambda problems: "authentication" in str(problems).lower(), timeout=20)
            assert "authentication" in worker.log.lower()
            assert PASSWORD not in worker.log + str(problems)


class TestPages:
    """The web server, and what the process costs when there is nothing to do."""

    @pytest.fixture
    def worker(self, admin: AdminClient, bootstrap: str, tmp_path: Path) -> Iterator[RunningWorker]:
        """Both stages, two sinks, and one event that has gone through them."""
        topics = Topics.create(admin, "pages", partitions=4)
        sinks = {
            "archive": {"type": "file", "path": str(tmp_path / "archive"), "flush_interval": "200ms"},
            "lines": {"type": "log", "flush_interval": "200ms"},
        }
        with RunningWorker(configuration(bootstrap, tmp_path, topics, sinks=sinks), tmp_path) as worker:
            produce(bootstrap, topics.ingest, [Sent(b"k", event(0))])
            worker.await_event("window_delivered", count=2)
            yield worker

    def test_pages_and_idle_cost(self, worker: RunningWorker) -> None:
        """/live, /ready and /health say yes, /metrics is Prometheus' format and has counted the event;
        idle, all three stages together take less than 5 % of a core."""
        worker.healthy()
        status, live = worker.get("/live")

        assert (status, json.loads(live)["live"]) == (200, True)
        eventually(lambda: exported(worker) == {"archive": 1, "lines": 1})
        assert worker.output.read_text().count("\n") == 1

        began, used = time.monotonic(), worker.cpu_seconds()
        time.sleep(5)  # a span to measure over; nothing is waited for
        assert (worker.cpu_seconds() - used) / (time.monotonic() - began) < 0.05

    def test_each_topic_is_spoken_of_once(self, worker: RunningWorker) -> None:
        """Though three stages have looked at the same ones."""
        spoken = Counter(event["topic"] for event in worker.seen("retention_by_producer_time"))

        assert spoken == dict.fromkeys(worker.config["topics"].values(), 1)


def exported(worker: RunningWorker) -> dict[str, float]:
    """How many events each sink has, by /metrics."""
    return {
        sample.labels["sink"]: sample.value
        for family in worker.metrics()
        for sample in family.samples
        if sample.name == "flagstream_export_events_total"
    }
