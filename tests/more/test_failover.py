"""Brokers die that coordinate transactions and groups: workers go on, and each event comes once."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.kafka.test_enrich import event, number
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_records import Sent, consume_all, create_topic, produce
from tests.support.running_worker import RunningWorker, Topics, configuration, eventually

PARTITIONS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster() as started:
        yield started


class Stream:
    """Events that are produced all the while, in a thread, until it is left."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.sent = 0
        self._bootstrap, self._topic = bootstrap, topic
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        for start in itertools.count(0, 20):
            records = [Sent(b"k%d" % n, event(n), None, n % PARTITIONS) for n in range(start, start + 20)]
            produce(self._bootstrap, self._topic, records)
            self.sent = start + 20
            if self._enough.wait(0.05):
                return


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("internal", ["__transaction_state", "__consumer_offsets"])
def test_workers_outlive_the_death_of_a_coordinator(
    cluster: KafkaCluster, tmp_path: Path, protocol: str, internal: str
) -> None:
    """Killed twice, with two workers under way, which enrich and copy to another topic: both processes stay
    the same, page and log are clear in the end, and each event is in the target once."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    topics = Topics.create(admin, f"failover.{protocol}", PARTITIONS)
    target = create_topic(admin, "failover.target", PARTITIONS)
    copy = {"type": "kafka", "topic": target, "flush_interval": "200ms"}
    kafka = {"group_protocol": protocol} | ({"session_timeout": "10s"} if protocol == "classic" else {})
    settings = configuration(cluster.bootstrap_servers, tmp_path, topics, kafka=kafka, sinks={"copy": copy})

    def copied() -> int:
        return len(consume_all(cluster.bootstrap_servers, target))

    def await_more() -> None:
        before = copied()
        eventually(lambda: copied() > before + 100, timeout=120)

    with ExitStack() as stack:
        workers = [stack.enter_context(RunningWorker(settings, tmp_path)) for _ in range(2)]
        for worker in workers:
            worker.await_event("partitions_assigned", count=2)
        with Stream(cluster.bootstrap_servers, topics.ingest) as stream:
            for _ in range(2):
                await_more()
                victim = cluster.coordinator(internal)
                victim.kill()
                await_more()
                victim.start()
        eventually(lambda: copied() >= stream.sent, timeout=120)
        for worker in workers:
            worker.healthy(timeout=90)
            assert worker.stop() == 0

    for topic in (topics.output, target):
        counts = Counter(map(number, consume_all(cluster.bootstrap_servers, topic)))
        assert counts == Counter(range(stream.sent))
