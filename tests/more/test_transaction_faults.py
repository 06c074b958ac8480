"""What transactions run into, where it takes long to show."""

import signal
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.kafka.test_enrich import event, number
from tests.support.kafka_records import Sent, consume_all, end_offset, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration, eventually


def test_many_refused_records_are_found_fast(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """A backlog of which all but the last records are too old, as when a topic is read again."""
    limits = {"message.timestamp.before.max.ms": "3600000"}
    topics = Topics.create(admin, "backlog", output=limits)
    now = round(time.time() * 1000)
    old = [Sent(b"k", event(n), timestamp_ms=now - 86_400_000 + n) for n in range(3_000)]
    produce(bootstrap, topics.ingest, [*old, Sent(b"k", event(9_999), timestamp_ms=now)])
    settings = configuration(bootstrap, tmp_path, topics, enrich={"keep_timestamps": True})

    with RunningWorker(settings, tmp_path, arguments=["--stage", "enrich"]) as worker:
        await_records(bootstrap, topics.dead_letters, 3_000)
        [good] = await_records(bootstrap, topics.output, 1)
        assert worker.stop() == 0

    assert number(good) == 9_999


def test_a_process_that_was_frozen_gives_way(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """It stood still with a transaction open until Kafka ended that: others may have its place, so it ends,
    with an exit code of its own, and the next one does the work, once."""
    topics = Topics.create(admin, "frozen")
    produce(bootstrap, topics.ingest, [Sent(b"k", event(n)) for n in range(5)])
    enrich = {"transaction_timeout": "5s"}
    settings = configuration(bootstrap, tmp_path, topics, kafka={"session_timeout": "45s"}, enrich=enrich)

    with RunningWorker(
        settings, tmp_path, arguments=["--stage", "enrich"], crash="transaction.offsets_sent:freeze"
    ) as worker:
        eventually(lambda: worker.frozen)
        eventually(lambda: end_offset(bootstrap, topics.output) > 5)  # the marker of the abort
        worker.send(signal.SIGCONT)
        assert worker.wait() == 3
        assert "stood still" in worker.await_event("worker_failed")["error"]
    assert consume_all(bootstrap, topics.output) == []
    with RunningWorker(settings, tmp_path, arguments=["--stage", "enrich"]):
        await_records(bootstrap, topics.output, 5, timeout=60)
