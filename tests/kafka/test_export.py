"""The export stage on a real Kafka: what ends up in files, what does not, and what stops what."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from flagstream.errors import ExitCode
from tests.support.archive import lines, ranges, stored
from tests.support.exporting import Exporting, event, events, files, kafka_section
from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_limits import BrokerLimits, Protocol
from tests.support.kafka_records import Received
from tests.support.running_worker import RunningWorker, add_partition, await_records, eventually

PROTOCOLS: Sequence[Protocol] = ("classic", "consumer")


def reasons(letters: list[Received]) -> list[tuple[bytes, bytes]]:
    """Return offset and reason of dead letters, in order of their offsets in the output topic."""
    headers = [dict(letter.headers) for letter in letters]
    return sorted((h["flagstream-offset"], h["flagstream-reason"]) for h in headers)


class Running(NamedTuple):
    """A worker and what it works on."""

    setup: Exporting
    worker: RunningWorker


@pytest.fixture(scope="module")
def running(
    admin: AdminClient, bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One worker for tests that have a partition of their own."""
    setting = Exporting.create(admin, bootstrap, tmp_path_factory.mktemp("export"), partitions=5)
    with setting.worker() as worker:
        worker.await_event("partitions_assigned")
        yield Running(setting, worker)


class TestWhatIsStored:
    """What ends up in files, partition by partition; the last one stops for good."""

    def test_each_event_is_stored_once_as_it_was(self, running: Running) -> None:
        """Files hold the same bytes in order, in files of at most ten, whose ranges tile."""
        setting, values = running.setup, events(95)
        setting.produce(values, partition=0)

        assert setting.await_lines(95, partition=0) == values
        assert max(len(window.lines) for window in setting.stored(0)) <= 10
        setting.await_committed(95)
        assert json.loads(setting.committed(0).metadata).keys() == {"v", "tid"}

    def test_a_quiet_topic_is_stored_by_the_clock(self, running: Running) -> None:
        """Three events come and nothing after them: the window does not wait for more."""
        running.setup.produce(events(3), partition=1)

        assert running.setup.await_lines(3, partition=1) == events(3)

    def test_aborted_records_are_not_stored_and_leave_no_hole(self, running: Running) -> None:
        """Offsets of aborted records and markers belong to a range, but not to its content."""
        setting = running.setup
        producer = Producer({"bootstrap.servers": setting.bootstrap, "transactional.id": setting.group()})
        producer.init_transactions(20)
        for number in range(6):
            producer.begin_transaction()
            for value in events(4, first=10 * number):
                producer.produce(setting.topics.output, value, partition=2)
            producer.flush(20)
            if number % 2:
                producer.abort_transaction(20)
            else:
                producer.commit_transaction(20)

        expected = [*events(4), *events(4, first=20), *events(4, first=40)]
        assert setting.await_lines(12, partition=2) == expected
        # four transactions of four records and a marker each, then the four of the last committed one
        assert setting.stored(2)[-1].end == 4 * (4 + 1) + 4

    def test_foreign_records_become_dead_letters(self, running: Running) -> None:
        """Tombstones and whatever is not a JSON object: each once, as it was; the rest is stored."""
        setting = running.setup
        values: list[bytes | None] = [
            event(0),
            None,
            event(2),
            b"hello",
            b"[1]",
            event(5),
            b'{"a":1},{"b":2}',
        ]
        setting.produce([*values, b"a\nb"], partition=3)

        assert setting.await_lines(3, partition=3) == [event(0), event(2), event(5)]
        letters = await_records(setting.bootstrap, setting.topics.dead_letters, 5)
        assert reasons(letters) == [
            (b"1", b"tombstone"),
            (b"3", b"foreign"),
            (b"4", b"foreign"),
            (b"6", b"foreign"),
            (b"7", b"foreign"),
        ]
        first = min(letters, key=lambda letter: dict(letter.headers)["flagstream-offset"])
        assert (first.key, first.value, first.headers[0]) == (b"key", None, ("h", b"1"))

        setting.produce([None, None], partition=3)
        await_records(setting.bootstrap, setting.topics.dead_letters, 7)
        setting.produce([event(10)], partition=3)
        assert setting.await_lines(4, partition=3)[-1] == event(10)
        assert ranges(setting.stored(3))[-1][1] == 11

    def test_a_conflict_stops_its_partition_only(self, running: Running) -> None:
        """Something else stands under the next name: it stays, /health and a metric say so, others go on."""
        setting, worker = running
        setting.produce(events(1), partition=4)
        setting.await_lines(1, partition=4)
        target = setting.folder / setting.topics.output / "4" / f"{1:019}-{11:019}.jsonl.gz"
        target.write_bytes(gzip.compress(b"somebody else's\n"))

        setting.produce(events(25), partition=4)
        stopped = worker.await_event("partition_stopped")
        problems = worker.await_problem(lambda found: str(target) in str(found))
        setting.produce(events(5, first=200), partition=0)

        assert str(target) in stopped["problem"]
        assert list(problems) == ["archive"]
        assert 'flagstream_stopped_partitions{source="archive"} 1.0' in worker.get("/metrics")[1]
        eventually(lambda: lines(setting.stored(0))[-1:] == [event(204)])
        assert gzip.decompress(target.read_bytes()) == b"somebody else's\n"
        assert len(setting.stored(4)) == 2
        assert setting.committed(4).offset == 1


def test_latest_loses_nothing_of_a_partition_that_is_added_later(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """A sink that began at "latest" reads the new partition from its first record, although that was there
    before the worker knew of the partition. Restarts in between forget nothing."""
    setting = Exporting.create(admin, bootstrap, tmp_path, start="latest")
    for run in (0, 1):
        with setting.worker() as worker:
            worker.await_event("partitions_assigned")
            setting.produce([event(run)])
            setting.await_lines(run + 1)
            setting.await_committed(run + 1)

    add_partition(admin, setting.topics.output)
    setting.produce(events(2, first=2), partition=1)
    with setting.worker():
        assert setting.await_lines(2, partition=1) == events(2, first=2)
    assert {"since", "of"} < json.loads(setting.committed(1).metadata).keys()


def test_sigterm_delivers_what_has_been_collected(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """A window far from full, its time far from up, is stored and committed before the end."""
    setting = Exporting.create(admin, bootstrap, tmp_path, flush_interval="1h")
    setting.produce(events(7))
    with setting.worker() as worker:
        worker.await_event("partitions_assigned")
        eventually(lambda: "flagstream_export_window_memory_bytes 0.0" not in worker.get("/metrics")[1])

        assert worker.stop() == 0
        assert worker.seen("window_delivered", closed_by="shutdown", events=7)

    assert lines(setting.stored()) == events(7)
    assert setting.committed().offset == 7


def test_a_refusing_sink_is_retried_until_it_is_mended(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """/health says why, SIGTERM waits no longer than its budget, and the plan is there for the next one."""
    by_start = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}/{{ .End }}.{{ .Extension }}"
    setting = Exporting.create(admin, bootstrap, tmp_path, name=by_start)
    setting.config["shutdown"] = {"budget": "1s"}
    with setting.worker() as worker:
        worker.await_event("partitions_assigned")
        worker.healthy()
        # In the way of the window, not of the listing that the takeover may still be at.
        obstacle = setting.folder / setting.topics.output / "0" / f"{0:019}"
        obstacle.parent.mkdir(parents=True)
        obstacle.write_text("a file where a folder has to be")
        setting.produce(events(10))

        problems = worker.await_problem(lambda found: found)
        worker.await_event("sink_failed", count=2, kind="refused")
        assert worker.stop() == 0

    assert "refused" in problems["archive"][0]
    plan = json.loads(setting.committed().metadata)
    assert (setting.committed().offset, plan["end"], plan["n"]) == (0, 10, 10)

    obstacle.unlink()
    with setting.worker() as worker:
        worker.await_event("plan_taken_over", start=0, end=10)
        setting.await_committed(10)
        worker.healthy()
    (file,) = setting.folder.rglob("*.gz")
    assert file == obstacle / f"{10:019}.jsonl.gz"
    assert gzip.decompress(file.read_bytes()).splitlines() == events(10)


def test_a_dead_sink_stalls_only_itself_and_a_late_one_replays(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Each sink has a group of its own: one goes on while the other waits, which then catches up."""
    setting = Exporting.create(admin, bootstrap, tmp_path)
    obstacle = tmp_path / "late"
    obstacle.write_text("a file where a folder has to be")
    late = files(obstacle / "archive")
    config = {**setting.config, "sinks": {**setting.config["sinks"], "late": late}}
    setting.produce(events(20))
    with RunningWorker(
        config, tmp_path, arguments=("--sink", "archive", "--sink", "late"), crash=""
    ) as worker:
        problems = worker.await_problem(lambda found: list(found) == ["late"])
        setting.await_lines(20)
        setting.produce(events(15, first=20))
        setting.await_lines(35)
        assert setting.committed(sink="late").offset == -1
        assert problems["late"]

        obstacle.unlink()
        eventually(lambda: len(lines(stored(obstacle / "archive", setting.topics.output))) == 35, timeout=90)
        assert lines(stored(obstacle / "archive", setting.topics.output)) == events(35)


def test_a_refused_window_becomes_dead_letters_if_told_so(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Window and offset are committed as one; the next window's name covers the range too."""
    by_start = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}/{{ .End }}.{{ .Extension }}"
    setting = Exporting.create(admin, bootstrap, tmp_path, on_refused="dead_letter", name=by_start)
    partition = setting.folder / setting.topics.output / "0"
    obstacle = partition / f"{10:019}"

    with setting.worker() as worker:
        worker.await_event("partitions_assigned")
        setting.produce(events(10))
        setting.await_committed(10)
        obstacle.write_text("a file where a folder has to be")
        setting.produce(events(10, first=10))
        letters = await_records(bootstrap, setting.topics.dead_letters, 10)
        setting.await_committed(20)
        assert json.loads(setting.committed().metadata)["from"] == 10
        obstacle.unlink()
        setting.produce(events(10, first=20))
        setting.await_committed(30)
        worker.healthy_but_for_dead_letters()

    assert [letter.value for letter in letters] == events(10, first=10)
    assert {reason for _, reason in reasons(letters)} == {b"refused"}
    assert {dict(letter.headers)["flagstream-stage"] for letter in letters} == {b"sink.archive"}
    names = sorted(str(file.relative_to(partition)) for file in partition.rglob("*.gz"))
    assert names == [f"{0:019}/{10:019}.jsonl.gz", f"{10:019}/{30:019}.jsonl.gz"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_partitions_move_to_a_worker_that_joins(
    admin: AdminClient, bootstrap: str, tmp_path: Path, protocol: Protocol, limits: BrokerLimits
) -> None:
    """What moves is finished or left to its plan: nothing is doubled, lost or cut differently."""
    kafka = kafka_section(protocol, limits)
    setting = Exporting.create(admin, bootstrap, tmp_path, partitions=4, kafka=kafka)
    with setting.worker() as one:
        one.await_event("partitions_assigned")
        for partition in range(4):
            setting.produce(events(33), partition)
        with setting.worker() as other:
            other.await_event("partitions_assigned")
            moved = other.seen("partitions_assigned")[0]["partitions"]
            for partition in range(4):
                setting.produce(events(33, first=33), partition)
            setting.await_committed(66, partitions=4)
            assert other.stop() == 0
            one.await_event("partitions_assigned", count=2)
            for partition in range(4):
                setting.produce(events(34, first=66), partition)
            setting.await_committed(100, partitions=4)

    assert 0 < len(moved) < 4
    for partition in range(4):
        assert lines(setting.stored(partition)) == events(100)


TRIPS = """
from flagstream.formats.jsonl import JsonLinesEncoder

add = JsonLinesEncoder.add


def tripping(self, values, records):
    if any(b'"trip"' in value for value in values):
        raise SystemError("nobody foresaw this")
    return add(self, values, records)


JsonLinesEncoder.add = tripping
"""


def test_what_nobody_foresaw_steps_over_nothing(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """An encoder raises at one record, with good ones before it, in its chunk and in the next chunks: the
    worker ends, its shutdown delivers nothing of that partition, and a worker without the mistake exports
    every record once.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path, flush_interval="1h", max_events=100_000)
    values = events(30_000)
    values[100] = b'{"kind":"trip"}'
    setting.produce(values)
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/sitecustomize.py").write_text(TRIPS)
    wrong = {"PYTHONPATH": f"{tmp_path / 'wrong'}:{REPOSITORY}"}

    with RunningWorker(
        setting.config, tmp_path, arguments=("--sink", "archive"), environment=wrong
    ) as worker:
        assert worker.wait() == ExitCode.UNEXPECTED
        assert worker.seen("worker_failed", error="nobody foresaw this")
    assert (setting.committed().offset, setting.stored()) == (-1, [])

    with setting.worker(flush_interval="1s"):
        setting.await_committed(30_000)
    assert lines(setting.stored()) == values
