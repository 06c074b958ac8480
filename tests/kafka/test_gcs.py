"""The export stage with Google Cloud Storage, on a real Kafka, is killed and taken over, and its store
fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.archive import lines, ranges
from tests.support.exporting import Exporting, events, kafka_section
from tests.support.faulty_proxy import Answer, FaultyProxy, Reset
from tests.support.kafka_limits import BrokerLimits
from tests.support.small_gcs import SmallGcs

BUCKET = "archive"


@pytest.fixture
def server() -> Iterator[SmallGcs]:
    with SmallGcs() as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def setting(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, server: SmallGcs
) -> Exporting:
    """A worker whose sink `archive` is a bucket; windows close at ten events or after 300 ms."""
    made = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("classic", limits))
    sink = {
        "type": "gcs",
        "bucket": BUCKET,
        "endpoint": server.url,
        "anonymous": True,
        "max_events": 10,
        "flush_interval": "300ms",
    }
    return made._replace(config={**made.config, "sinks": {"archive": sink}})


def mirror(server: SmallGcs, setting: Exporting) -> list[str]:
    """Copies the bucket to the folder from which `setting` reads; returns the names."""
    names = server.names(BUCKET)
    for name in names:
        file = setting.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(server.content(BUCKET, name))
    return names


def test_a_killed_worker_is_continued_exactly(setting: Exporting, server: SmallGcs) -> None:
    """Killed when its object was stored and nobody knew: the successor, with other limits, takes the plan
    over, finds the object there, and goes on. Each event is in one object.
    """
    setting.produce(events(35))
    with setting.worker(crash="export.delivering:kill") as worker:
        assert worker.wait() == -9
    assert len(server.names(BUCKET)) == 1
    assert setting.committed().offset == 0

    with setting.worker(max_events=4) as successor:
        setting.await_committed(35)
        successor.await_event("plan_taken_over", start=0, end=10)
        there = successor.seen("window_delivered", already_there=1)

    names = mirror(server, setting)
    assert lines(setting.stored()) == events(35)
    assert len(names) == len(setting.stored())
    assert ranges(setting.stored())[0] == (0, 10)
    assert len(there) == 1


def test_a_failing_store_delays_and_nothing_else(setting: Exporting, server: SmallGcs) -> None:
    """Uploads that are refused, reset, or taken without an answer are repeated, none twice in the bucket."""
    with FaultyProxy(server.url) as proxy, setting.worker(endpoint=proxy.url) as worker:
        worker.await_event("partitions_assigned")
        worker.healthy()
        for fault in (Answer(503), Reset(), Reset(forward=True), Answer(500, forward=True)):
            proxy.fail(fault, "POST")
        setting.produce(events(35))
        setting.await_committed(35)
        assert proxy.faults == 4
        assert worker.stop() == 0

    assert len(mirror(server, setting)) == len(setting.stored())
    assert lines(setting.stored()) == events(35)
