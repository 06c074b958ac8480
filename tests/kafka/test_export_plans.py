"""What a plan is for: windows survive kills, takeovers and zombies; what does not fit stops."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from flagstream.export.budget import WINDOW_OVERHEAD
from flagstream.sinks.objects.file import STAGING
from tests.support.archive import lines, ranges, stored
from tests.support.exporting import Exporting, events, kafka_section
from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_limits import BrokerLimits, Protocol
from tests.support.kafka_records import consume_all
from tests.support.running_worker import RunningWorker, await_records, eventually, make_anew

PROTOCOLS: Sequence[Protocol] = ("classic", "consumer")

AT_THE_KILL = {
    "export.planning": (0, None, 0),
    "export.planned": (0, 10, 0),
    "export.delivering": (0, 10, 1),
    "export.delivered": (0, 10, 1),
    "export.committed": (10, 20, 1),
}
"""Crash point: the committed offset, the planned end beside it, and the files, at the first window."""


def held_in_memory(worker: RunningWorker) -> float:
    """Bytes that the worker's windows hold, by its metrics."""
    (line,) = re.findall(r"^flagstream_export_window_memory_bytes (.+)$", worker.get("/metrics")[1], re.M)
    return float(line)


def planned_end(metadata: str) -> int | None:
    """Return the end of the plan in a commit's metadata."""
    end = json.loads(metadata or "{}").get("end")
    assert end is None or isinstance(end, int)
    return end


@pytest.mark.parametrize("point", AT_THE_KILL)
def test_a_killed_worker_is_continued_exactly(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, point: str
) -> None:
    """The successor, with other limits, delivers what was planned as it was planned, and then goes on."""
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("classic", limits))
    setting.produce(events(35))
    offset, end, count = AT_THE_KILL[point]

    with setting.worker(crash=f"{point}:kill") as worker:
        assert worker.wait() == -9

    found = setting.committed()
    assert (max(found.offset, 0), planned_end(found.metadata), len(setting.stored())) == (offset, end, count)
    with setting.worker(max_events=4) as successor:
        assert setting.await_lines(35) == events(35)
        setting.await_committed(35)
        taken_over = successor.seen("plan_taken_over")
        there = successor.seen("window_delivered", already_there=1)
    assert [(plan["start"], plan["end"]) for plan in taken_over] == ([] if end is None else [(offset, end)])
    assert len(there) == (point in ("export.delivering", "export.delivered"))
    assert setting.stored()[0].end == (4 if end is None else 10)


SLOW_LISTING = """
import time

from flagstream.sinks.objects import ObjectSink

holdings = ObjectSink.holdings


def slow(self, partition, start):
    time.sleep(1)
    return holdings(self, partition, start)


ObjectSink.holdings = slow
"""


def test_deeply_nested_records_are_the_same_ones_when_a_plan_is_repeated(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Who plans has the records first and then asks the sink what it holds, who takes over the other way
    round: Python's stack is not the same, and where it ends decides nothing.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path, max_events=1_000, flush_interval="2s")
    good = [b'{"value":%b}' % (b"[" * levels + b"]" * levels) for levels in range(490, 500)]
    deep = [
        b'{"value":%b}' % (b"[" * levels + b"]" * levels) for levels in (*range(500, 510), *range(900, 1_000))
    ]
    with setting.worker(crash="export.planned:kill") as worker:
        worker.healthy()
        setting.produce([*good, *deep, *events(10)])
        assert worker.wait() == -9
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_LISTING)
    slow = {"PYTHONPATH": f"{tmp_path / 'slow'}:{REPOSITORY}"}

    with RunningWorker(
        setting.config, tmp_path, arguments=("--sink", "archive"), environment=slow
    ) as successor:
        assert setting.await_lines(20) == [*good, *events(10)]
        assert successor.seen("plan_taken_over", records=20)
        letters = await_records(bootstrap, setting.topics.dead_letters, len(deep))
    assert [letter.value for letter in letters] == deep
    assert {dict(letter.headers)["flagstream-reason"] for letter in letters} == {b"too_deep"}


@pytest.mark.parametrize("point", ["source.revoking", "export.planned"])
def test_a_worker_killed_while_it_gives_partitions_away_is_continued_exactly(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, point: str
) -> None:
    """The worker dies in the revoke callback: before anything is finished, and when what was collected is
    planned."""
    kafka = kafka_section("classic", limits)
    setting = Exporting.create(admin, bootstrap, tmp_path, partitions=2, kafka=kafka, flush_interval="1h")
    with setting.worker(crash=f"{point}:kill") as worker:
        worker.await_event("partitions_assigned", partitions=[0, 1])
        for partition in (0, 1):
            setting.produce(events(7), partition)
        eventually(lambda: held_in_memory(worker) >= 2 * WINDOW_OVERHEAD)
        with setting.worker(flush_interval="300ms") as successor:
            assert worker.wait() == -9
            for partition in (0, 1):
                assert setting.await_lines(7, partition) == events(7)
            assert successor.stop() == 0
    assert [setting.committed(partition).offset for partition in (0, 1)] == [7, 7]


def test_a_kill_under_the_consumer_protocol_is_continued_exactly(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits
) -> None:
    """KIP-848: the plan beside the offset is read back, and the file that is there is found."""
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("consumer", limits))
    setting.produce(events(35))
    with setting.worker(crash="export.delivering:kill") as worker:
        assert worker.wait() == -9
    assert planned_end(setting.committed().metadata) == 10

    with setting.worker(max_events=4) as successor:
        assert setting.await_lines(35) == events(35)
        assert successor.await_event("window_delivered", already_there=1, taken_over=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_late_commit_of_a_zombie_is_refused(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, protocol: Protocol
) -> None:
    """It sleeps between delivery and commit until its session is over and another one has gone on; when it
    wakes, its commit changes nothing, nothing is doubled, and it is an ordinary member again.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section(protocol, limits))
    setting.produce(events(20))
    with setting.worker(crash="export.delivered:freeze") as zombie:
        eventually(lambda: len(setting.stored()) == 1)
        with setting.worker(max_events=4) as successor:
            setting.await_lines(20)
            setting.await_committed(20)
            assert successor.seen("window_delivered", already_there=1, taken_over=True)

            zombie.send(SIGCONT)
            eventually(lambda: bool(zombie.seen("commit_failed") or zombie.seen("partitions_lost")))
            assert successor.stop() == 0
        zombie.await_event("partitions_assigned", count=2)
        setting.produce(events(10, first=20))
        assert setting.await_lines(30) == events(30)
        setting.await_committed(30)
    assert ranges(setting.stored())[0] == (0, 10)


def test_a_plan_of_another_configuration_is_finished_by_the_old_one(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits
) -> None:
    """The new one stops and names the ways out, the old one finishes the window, then the new one works."""
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("classic", limits))
    setting.produce(events(10))
    with setting.worker(crash="export.planned:kill") as worker:
        assert worker.wait() == -9

    with setting.worker(compression="none") as changed:
        problem = changed.await_event("partition_stopped")["problem"]
        assert changed.await_problem(lambda found: found)["archive"] == [problem]
        assert changed.stop() == 0
    assert "old configuration" in problem
    assert setting.stored() == []

    with setting.worker() as old:
        assert setting.await_lines(10) == events(10)
        eventually(lambda: planned_end(setting.committed().metadata) is None)
        assert old.stop() == 0
    setting.produce(events(5, first=10))
    with setting.worker(compression="none"):
        assert setting.await_lines(15) == events(15)


def test_offsets_that_were_set_back_double_nothing(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """An operator lets the group begin again: the files that are there are adopted, each as it was cut."""
    setting = Exporting.create(admin, bootstrap, tmp_path)
    setting.produce(events(35))
    with setting.worker() as worker:
        setting.await_lines(35)
        assert worker.stop() == 0
    before = setting.stored()
    setting.reset(before[1].start)

    with setting.worker(max_events=3) as worker:
        worker.await_event("objects_adopted")
        setting.await_committed(35)
        assert len(worker.seen("window_delivered", already_there=1)) == len(before) - 1
        setting.produce(events(3, first=35))
        assert setting.await_lines(38) == events(38)
    assert ranges(setting.stored())[: len(before)] == ranges(before)


def test_offsets_that_were_set_back_behind_a_change_of_format_double_nothing(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Files that the sink would name otherwise now are not written again: it stops and names the way out."""
    setting = Exporting.create(admin, bootstrap, tmp_path)
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_lines(20)
        setting.await_committed(20)
        assert worker.stop() == 0
    setting.produce(events(10, first=20))
    with setting.worker(compression="none") as worker:
        setting.await_lines(30)
        setting.await_committed(30)
        assert worker.stop() == 0
    before = ranges(setting.stored())
    setting.reset(0)

    with setting.worker(compression="none") as worker:
        problem = worker.await_event("partition_stopped")["problem"]
        assert worker.stop() == 0
    assert before == ranges(setting.stored())

    found = re.search(r"reset the group's offset of this partition to (\d+)", problem)
    assert found is not None
    setting.reset(int(found[1]))
    setting.produce(events(5, first=30))
    with setting.worker(compression="none"):
        assert setting.await_lines(35) == events(35)


def test_offsets_that_were_set_into_a_window_stop(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """No window can start inside one that is stored: nothing is written beside it."""
    setting = Exporting.create(admin, bootstrap, tmp_path)
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_lines(20)
        assert worker.stop() == 0
    before = ranges(setting.stored())
    setting.reset(5)

    with setting.worker() as worker:
        problem = worker.await_event("partition_stopped")["problem"]
        worker.await_problem(lambda found: found)
        setting.produce(events(20, first=20))
    assert f"{setting.topics.output}-0-0-10" in problem
    assert ranges(setting.stored()) == before


def test_deleted_files_come_back_by_a_reset_only_at_the_end(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """The last one is exported again as it was; before others that are stored nothing is written, and the
    message says what may have happened.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path)
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_lines(20)
        assert worker.stop() == 0
    folder = setting.folder / setting.topics.output / "0"
    first, last = sorted(folder.iterdir())
    content = last.read_bytes()

    last.unlink()
    setting.reset(10)
    with setting.worker() as worker:
        setting.await_lines(20)
        assert worker.stop() == 0
    assert last.read_bytes() == content

    first.unlink()
    setting.reset(0)
    with setting.worker() as worker:
        problem = worker.await_event("partition_stopped")["problem"]
    assert "its objects from 0 on were deleted" in problem
    assert not first.exists()


def test_a_deleted_group_stops_or_goes_on_behind_what_is_stored(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """No offset but files: it stops by default, and if so configured goes on with the last of them."""
    setting = Exporting.create(admin, bootstrap, tmp_path)
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_lines(20)
        assert worker.stop() == 0
    admin.delete_consumer_groups([setting.group()])[setting.group()].result(timeout=20)
    setting.produce(events(5, first=20))

    with setting.worker() as worker:
        problem = worker.await_event("partition_stopped")["problem"]
        assert worker.stop() == 0
    assert "on_lost_offsets" in problem
    assert len(lines(setting.stored())) == 20

    with setting.worker(on_lost_offsets="continue") as worker:
        worker.await_event("offsets_lost", continues_at=10)
        assert setting.await_lines(25) == events(25)
        worker.await_event("window_delivered", already_there=1, events=10)
        worker.healthy()
        assert worker.stop() == 0


@pytest.mark.parametrize("way", ["continue", "reset"])
def test_lost_offsets_lose_nothing_of_a_window_that_was_half_stored(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, way: str
) -> None:
    """A layout stores a window's index first: killed after it, and the group deleted, the window is
    finished, whether the worker goes on by itself or an operator does what it says.
    """
    name = "{{ .Topic }}/{{ .Partition }}/user={{ .UserKey }}/{{ .Start }}-{{ .End }}.{{ .Extension }}"
    kafka = kafka_section("classic", limits)
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka, name=name)
    setting.produce(events(35))
    with setting.worker(crash="export.indexed:kill:3") as worker:
        assert worker.wait() == -9
    assert sorted(lines_below(setting.folder)) == sorted(events(20))
    delete_group(admin, setting)
    setting.produce(events(5, first=35))

    if way == "reset":
        with setting.worker() as worker:
            problem = worker.await_event("partition_stopped")["problem"]
            assert worker.stop() == 0
        found = re.search(r"reset the group's offset of this partition to (\d+)", problem)
        assert found is not None
        setting.reset(int(found[1]))
    with setting.worker(on_lost_offsets="continue" if way == "continue" else "stop"):
        setting.await_committed(40)
    assert sorted(lines_below(setting.folder)) == sorted(events(40))


def test_lost_offsets_lose_nothing_under_latest(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits
) -> None:
    """The new start lies after what came while no worker ran: it is stopped at, and nothing is passed
    over.
    """
    kafka = kafka_section("classic", limits)
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka)
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_committed(20)
        assert worker.stop() == 0
    delete_group(admin, setting)
    setting.produce(events(5, first=20))

    for _ in range(2):  # what the first one did must not hide it from the second
        with setting.worker(start="latest") as worker:
            problem = worker.await_event("partition_stopped")["problem"]
            assert "the group's offsets were lost" in problem
            assert worker.stop() == 0
    with setting.worker(start="latest", on_lost_offsets="continue"):
        setting.await_committed(25)
    assert sorted(lines_below(setting.folder)) == sorted(events(25))


def test_records_deleted_before_they_were_exported_stop_or_are_passed_over(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """It stops by default and says how far; if so configured the next name covers the hole."""
    setting = Exporting.create(admin, bootstrap, tmp_path)
    setting.produce(events(10))
    with setting.worker() as worker:
        setting.await_lines(10)
        setting.await_committed(10)
        assert worker.stop() == 0
    setting.produce(events(20, first=10))
    delete_records(admin, setting, before=15)

    with setting.worker() as worker:
        stopped = worker.await_event("partition_stopped")
        worker.await_problem(lambda found: found)
        assert worker.stop() == 0
    assert "15" in stopped["problem"]
    assert "on_missing_records" in stopped["ways_out"]
    assert setting.committed().offset == 10

    with setting.worker(on_missing_records="continue") as worker:
        worker.await_event("records_missing")
        assert setting.await_lines(25) == [*events(10), *events(15, first=15)]
        setting.await_committed(30)
        assert worker.stop() == 0
    assert ranges(setting.stored())[1][0] == 10


@pytest.mark.parametrize("policy", ["continue", "stop"])
def test_what_was_fetched_is_exported_although_the_topic_holds_it_no_longer(
    admin: AdminClient, bootstrap: str, tmp_path: Path, policy: str
) -> None:
    """Retention overtakes a sink that is down: when it is up again, the events in memory are delivered first,
    those in windows and those that wait. Only then the partition goes on after the hole, or stops.
    """
    setting = Exporting.create(
        admin, bootstrap, tmp_path, on_missing_records=policy, max_events=2, flush_interval="1h"
    )
    with setting.worker() as worker:
        worker.await_event("partitions_assigned")
        worker.healthy()
        staging = setting.folder / STAGING
        staging.rename(tmp_path / "gone")
        setting.produce(events(7))
        worker.await_event("sink_failed")
        # Three windows are full, and the last event waits after them.
        eventually(lambda: held_in_memory(worker) >= 3 * WINDOW_OVERHEAD)
        setting.produce(events(7, first=7))
        delete_records(admin, setting, before=10)
        (tmp_path / "gone").rename(staging)

        worker.await_event("records_missing" if policy == "continue" else "partition_stopped")
        setting.await_committed(14 if policy == "continue" else 7)
        assert worker.stop() == 0
    kept = events(4, first=10) if policy == "continue" else []
    assert lines(setting.stored()) == [*events(7), *kept]


def test_a_plan_whose_records_were_deleted_stops_or_is_given_what_is_left(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits
) -> None:
    """Part of a planned window is gone: it stops by default; if so configured the rest gets its name."""
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("classic", limits))
    setting.produce(events(20))
    with setting.worker(crash="export.planned:kill") as worker:
        assert worker.wait() == -9
    delete_records(admin, setting, before=4)

    with setting.worker() as worker:
        worker.await_event("partition_stopped")
        assert worker.stop() == 0
    assert planned_end(setting.committed().metadata) == 10
    assert setting.stored() == []

    with setting.worker(on_missing_records="continue") as worker:
        assert setting.await_lines(16) == events(16, first=4)
        assert worker.stop() == 0
    assert ranges(setting.stored())[0] == (0, 10)


@pytest.mark.parametrize("point", ["transaction.offsets_sent", "export.committed"])
def test_a_kill_around_dead_letters_doubles_none(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits, point: str
) -> None:
    """Dead letters and the window's end are one transaction: both are there, or the successor makes both."""
    kafka = {**kafka_section("classic", limits), "instance": "one"}
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka=kafka)
    # until the broker ends the dead worker's transaction, its offsets are not reported
    setting.config["enrich"] = {"transaction_timeout": "2s"}
    values: list[bytes | None] = [*events(8), None, b"no"]
    setting.produce(values)
    with setting.worker(crash=f"{point}:kill") as worker:
        assert worker.wait() == -9

    setting.produce(events(5, first=10))
    with setting.worker():
        assert setting.await_lines(13) == [*events(8), *events(5, first=10)]
        letters = await_records(bootstrap, setting.topics.dead_letters, 2)
        setting.await_committed(15)
    assert sorted(letter.value or b"" for letter in letters) == [b"", b"no"]
    assert len(consume_all(bootstrap, setting.topics.dead_letters)) == 2


@pytest.mark.parametrize("count", [5, 30], ids=["fewer records", "more records"])
def test_a_topic_that_was_made_anew_stops(
    admin: AdminClient, bootstrap: str, tmp_path: Path, count: int
) -> None:
    """Its offsets mean other records: going on after what is stored would pass over them. Kafka deletes the
    group's offsets with the topic, so what is stored has to show it.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path, on_lost_offsets="continue")
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_lines(20)
        assert worker.stop() == 0
    make_anew(admin, setting.topics.output)
    setting.produce(events(count, first=100))

    with setting.worker() as worker:
        worker.await_event("partition_stopped")
        worker.await_problem(lambda found: found)
    assert lines(setting.stored()) == events(20)
    assert setting.committed().offset == -1

    with setting.worker(path=str(tmp_path / "other")):
        eventually(
            lambda: lines(stored(tmp_path / "other", setting.topics.output)) == events(count, first=100)
        )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_topic_that_is_made_anew_meanwhile_stops(
    admin: AdminClient, bootstrap: str, tmp_path: Path, protocol: Protocol
) -> None:
    """The worker is not fetching while it happens, and nothing is wrong with its offset in the new topic:
    it would go on there, after the first records.
    """
    setting = Exporting.create(admin, bootstrap, tmp_path, kafka={"group_protocol": protocol})
    setting.produce(events(20))
    with setting.worker() as worker:
        setting.await_lines(20)
        setting.await_committed(20)
        worker.send(SIGSTOP)
        make_anew(admin, setting.topics.output)
        setting.produce(events(50, first=100))
        worker.send(SIGCONT)

        worker.await_event("partition_stopped")
        worker.await_problem(lambda found: found)
    assert lines(setting.stored()) == events(20)
    assert setting.committed().offset == -1

    with setting.worker(path=str(tmp_path / "other")):
        eventually(lambda: lines(stored(tmp_path / "other", setting.topics.output)) == events(50, first=100))


def delete_records(admin: AdminClient, setting: Exporting, before: int) -> None:
    """What retention does: the output partition begins at `before`."""
    wanted = TopicPartition(setting.topics.output, 0, before)
    for deleted in admin.delete_records([wanted]).values():
        assert deleted.result(timeout=20).low_watermark == before


def lines_below(folder: Path) -> list[bytes]:
    """Return the lines of all files of a layout."""
    files = folder.rglob("*.jsonl.gz")
    return [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def delete_group(admin: AdminClient, setting: Exporting) -> None:
    """What expiry does: the group and its offsets are gone, once its killed member is."""
    group = setting.group()

    def gone() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result(timeout=20)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                raise
            return False
        return True

    eventually(gone)
