"""The export stage with S3, on a real Kafka, is killed after an upload and taken over, and its store
fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.archive import lines, ranges
from tests.support.exporting import Exporting, events, kafka_section
from tests.support.faulty_proxy import Answer, FaultyProxy, Reset
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import consume_all
from tests.support.running_worker import await_records
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, Folder, SeaweedFs


@pytest.fixture(scope="module")
def server() -> Iterator[SeaweedFs]:
    with SeaweedFs() as server:
        yield server


@pytest.fixture
def folder(server: SeaweedFs) -> Folder:
    return server.folder()


@pytest.fixture
def setting(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, folder: Folder
) -> Exporting:
    """A worker whose sink `archive` is in S3; windows close at ten events or after 300 ms."""
    made = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("classic", limits))
    sink = {
        "type": "s3",
        "bucket": folder.bucket,
        "prefix": folder.prefix,
        "endpoint": folder.url,
        "path_style": True,
        "region": "us-east-1",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "max_events": 10,
        "flush_interval": "300ms",
    }
    return made._replace(config={**made.config, "sinks": {"archive": sink}})


def mirror(folder: Folder, setting: Exporting) -> list[str]:
    """Copies the objects to the folder from which `setting` reads; returns their names."""
    names = folder.names()
    for name in names:
        file = setting.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(folder.read(name))
    return names


def test_a_killed_worker_is_continued_exactly(setting: Exporting, folder: Folder) -> None:
    """Killed when its object was stored and nobody knew: the successor, with other limits, takes the plan
    over, finds the object there, and goes on. Each event is in one object.
    """
    setting.produce(events(35))
    with setting.worker(crash="export.delivering:kill") as worker:
        assert worker.wait() == -9
    assert len(folder.names()) == 1
    assert setting.committed().offset == 0

    with setting.worker(max_events=4) as successor:
        setting.await_committed(35)
        successor.await_event("plan_taken_over", start=0, end=10)
        there = successor.seen("window_delivered", already_there=1)

    names = mirror(folder, setting)
    assert lines(setting.stored()) == events(35)
    assert len(names) == len(setting.stored())
    assert ranges(setting.stored())[0] == (0, 10)
    assert len(there) == 1


def test_a_failing_store_delays_and_nothing_else(
    setting: Exporting, server: SeaweedFs, folder: Folder
) -> None:
    """Writes that are refused, reset, or taken without an answer are repeated, none twice in the bucket."""
    with FaultyProxy(server.url) as proxy, setting.worker(endpoint=proxy.url) as worker:
        worker.await_event("partitions_assigned")
        worker.healthy()
        for fault in (Answer(503), Answer(503), Reset(), Reset(forward=True), Answer(500, forward=True)):
            proxy.fail(fault, "PUT", of_windows)
        setting.produce(events(35))
        setting.await_committed(35)
        assert proxy.faults == 5
        assert SECRET_KEY not in "\n".join(worker.lines)
        assert worker.stop() == 0

    assert len(mirror(folder, setting)) == len(setting.stored())
    assert lines(setting.stored()) == events(35)


def of_windows(target: str) -> bool:
    return target.endswith(".jsonl.gz")


def test_rights_that_are_given_back_make_no_dead_letters(
    setting: Exporting, server: SeaweedFs, folder: Folder, bootstrap: str
) -> None:
    """Taken away for some tries, they are reported at once, as trouble of the sink; when they are back all is
    stored, though refused windows are to become dead letters.
    """
    denied = Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
    given = {"on_refused": "dead_letter", "refused_after": "60s"}
    with FaultyProxy(server.url) as proxy, setting.worker(endpoint=proxy.url, **given) as worker:
        worker.await_event("partitions_assigned")
        worker.healthy()
        proxy.fail(denied, "PUT", of_windows, times=6)
        setting.produce(events(35))
        failed = worker.await_event("sink_failed", kind="refused")
        assert "403 AccessDenied: the credentials have no right to this" in failed["error"]
        assert "windows become dead letters if this lasts 60s" in failed["error"]
        setting.await_committed(35)
        worker.healthy()
        assert worker.stop() == 0
    mirror(folder, setting)
    assert lines(setting.stored()) == events(35)
    assert consume_all(bootstrap, setting.topics.dead_letters) == []


def test_rights_that_stay_away_make_dead_letters(
    setting: Exporting, server: SeaweedFs, folder: Folder, bootstrap: str
) -> None:
    """Once that has lasted; the windows of that time do not wait again, and those after it are stored."""
    denied = Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
    given = {"on_refused": "dead_letter", "refused_after": "2s"}
    with FaultyProxy(server.url) as proxy, setting.worker(endpoint=proxy.url, **given) as worker:
        worker.await_event("partitions_assigned")
        worker.healthy()
        proxy.fail(denied, "PUT", of_windows, times=1_000)
        setting.produce(events(20))
        letters = await_records(bootstrap, setting.topics.dead_letters, 20)
        setting.await_committed(20)
        proxy.heal()
        setting.produce(events(10, first=20))
        setting.await_committed(30)
        refused = worker.seen("window_refused")
        assert worker.stop() == 0
    assert [letter.value for letter in letters] == events(20)
    assert len(refused) >= 2
    mirror(folder, setting)
    assert lines(setting.stored()) == events(10, first=20)
