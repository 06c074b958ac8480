"""Records that are large once they are unpacked, on a real Kafka: they go through, and take no more memory
than they may.
"""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from flagstream.memory import MemoryShare
from tests.support.exporting import Exporting
from tests.support.kafka_records import Sent, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration, eventually

MB, MIB = 1000**2, 1024**2
EVENT_BYTES = 20_000


def events(count: int) -> Iterator[bytes]:
    """Return events of 20 KB with one evaluation context, which compress to almost nothing."""
    random = Random(7)
    context = {f"attribute-{n}": f"{random.getrandbits(64):x}" for n in range(EVENT_BYTES // 38)}
    for number in range(count):
        event = {"kind": "feature", "userKey": f"u{number}", "creationDate": 1, "key": "f", "value": True}
        yield json.dumps({**event, "evaluationContext": context, "n": number}).encode()


def produce_compressed(bootstrap: str, topic: str, count: int, partitions: int) -> None:
    """All events, spread over the partitions, in zstd batches of at most 1 MB before they are compressed."""
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "zstd", "linger.ms": 200})
    for number, value in enumerate(events(count)):
        producer.produce(topic, value, partition=number % partitions)
        producer.poll(0)
        if number % 2_000 == 0:
            producer.flush(60)
    assert producer.flush(60) == 0


def numbers(bootstrap: str, topic: str, count: int) -> list[int]:
    return sorted(json.loads(record.value or b"")["n"] for record in await_records(bootstrap, topic, count))


@pytest.mark.parametrize(
    "queue",
    [{"queue.buffering.max.kbytes": 1024}, {"queue.buffering.max.messages": 7}],
    ids=["bytes", "count"],
)
def test_a_chunk_that_does_not_fit_the_producers_queue_goes_through(
    admin: AdminClient, bootstrap: str, tmp_path: Path, queue: dict[str, int]
) -> None:
    """The queue is waited for. To roll back and read the same again would never end."""
    topics = Topics.create(admin, "large")
    config = configuration(bootstrap, tmp_path, topics, kafka={"producer_properties": queue})
    produce(bootstrap, topics.ingest, [Sent(b"k", value) for value in events(500)])

    with RunningWorker(config, tmp_path, arguments=("--stage", "enrich")) as worker:
        assert numbers(bootstrap, topics.output, 500) == list(range(500))
        assert not worker.seen("transaction_aborted")
        assert worker.stop() == 0


def test_partitions_move_while_the_queue_is_full(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """The group does not wait for all that there is to be produced, and what moves is neither doubled nor
    lost.
    """
    topics = Topics.create(admin, "large", partitions=4)
    config = configuration(
        bootstrap, tmp_path, topics, kafka={"producer_properties": {"queue.buffering.max.messages": 3}}
    )
    with RunningWorker(config, tmp_path, arguments=("--stage", "enrich")) as one:
        one.await_event("partitions_assigned")
        produce(
            bootstrap,
            topics.ingest,
            [Sent(None, value, partition=n % 4) for n, value in enumerate(events(2_000))],
        )
        with RunningWorker(config, tmp_path, arguments=("--stage", "enrich")) as other:
            other.await_event("partitions_assigned")
            assert numbers(bootstrap, topics.output, 2_000) == list(range(2_000))


def test_memory_stays_within_the_budget(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """200 MB of events that come as 2 MB, on 8 partitions, through both stages of one process: what waits is
    within its share by the worker's own account, and the process within the budget and 200 MB beside it.
    """
    count, partitions = 10_000, 8
    topics = Topics.create(admin, "large", partitions=partitions)
    config = configuration(
        bootstrap,
        tmp_path,
        topics,
        export={"memory_budget": "64MiB"},
        sinks={"archive": {"type": "file", "path": str(tmp_path / "archive"), "flush_interval": "1s"}},
        kafka={"producer_properties": {"compression.type": "zstd"}},
    )
    produce_compressed(bootstrap, topics.ingest, count, partitions)
    share = MemoryShare(32 * MIB)
    seen: dict[str, float] = {}

    def exported() -> float:
        found = 0.0
        for family in worker.metrics():
            for sample in family.samples:
                if sample.name in ("flagstream_waiting_bytes", "flagstream_export_window_memory_bytes"):
                    name = "-".join([sample.labels.get("source", ""), sample.labels.get("where", "windows")])
                    seen[name] = max(seen.get(name, 0.0), sample.value)
                elif sample.name == "flagstream_export_events_total":
                    found = sample.value
        return found

    with RunningWorker(config, tmp_path) as worker:
        worker.await_event("partitions_assigned", count=2)
        eventually(lambda: exported() >= count, timeout=90, every=0.02)
        peak = peak_bytes(worker.pid)
        assert worker.stop() == 0

    assert exported_lines(tmp_path / "archive") == count
    for source in ("enrich", "archive"):
        assert 0 < seen[f"{source}-taken"] <= share.taken + 2 * share.chunk + share.pipeline
    assert seen["-windows"] <= share.total
    assert peak < 64 * MIB + 200 * MB


def test_partitions_that_are_stuck_leave_room_for_others(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Three of four cannot be delivered. What they have no room for fills all that may wait, so it is given
    back, and the fourth goes on. When they are mended, each of their events is delivered once.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path, partitions=4, max_events=200)
    setting.config["export"] = {"memory_budget": "1MiB"}
    obstacles = [setting.folder / setting.topics.output / str(partition) for partition in range(3)]
    obstacles[0].parent.mkdir(parents=True)
    for obstacle in obstacles:
        obstacle.write_text("a file where a folder has to be")
    values = [b'{"kind":"feature","userKey":"u%d","value":"%b"}' % (n, b"x" * 500) for n in range(2_000)]
    for partition in range(4):
        setting.produce(values, partition)

    with setting.worker() as worker:
        assert setting.await_lines(2_000, partition=3) == values
        worker.await_problem(lambda problems: problems)
        for obstacle in obstacles:
            obstacle.unlink()
        for partition in range(3):
            assert setting.await_lines(2_000, partition) == values
        assert not worker.seen("chunk_out_of_order")


def peak_bytes(pid: int) -> int:
    """The most that a process has had in memory."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def exported_lines(folder: Path) -> int:
    """How many lines all files hold."""
    return sum(len(gzip.decompress(file.read_bytes()).splitlines()) for file in folder.rglob("*.jsonl.gz"))
